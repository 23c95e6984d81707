"""What a person is shown: one whole episode, and nothing that the episode would notice."""

import gymnasium as gym
import numpy as np
import pytest

from slipstream.envs import gl
from slipstream.envs.film import VideoConfig
from slipstream.envs.setup import EnvConfig, open_env, open_filmed
from slipstream.errors import SlipstreamError

PATH = "tests.envs.test_film"


class Counter(gym.Env):
    """Paints how many steps its episode has, and whether it is the second."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode=None, fps=20, length=5):
        self.render_mode, self.length = render_mode, length
        self.metadata = {**self.metadata, "render_fps": fps}
        self.episode = -1
        self.t = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        over = self.t == self.length
        return np.full(1, self.t, np.float32), 1.0, over, False, {"success": over}

    def render(self):
        if self.render_mode is None:
            return None
        return np.full((20, 30, 3), 10 * self.t + 100 * self.episode, np.uint8)


def blind():
    """Knows no `render_mode`."""
    return Counter()


def needs_opengl():
    try:
        gl.open_context(8).free()
    except SlipstreamError as error:
        pytest.skip(str(error))


def frames_of(env, num_steps):
    env.reset(0)
    for _ in range(num_steps):
        env.step(np.zeros((1, env.spec.action_dim), np.float32))
    env.close()


def test_the_first_episode_is_shown_from_its_first_state_to_its_last():
    shown = []
    env = open_filmed(f"{PATH}:Counter", EnvConfig(), lambda *frame: shown.append(frame), 64)
    frames_of(env, 8)  # three steps into the next episode
    assert [int(frame[0, 0, 0]) for frame, _ in shown] == [0, 10, 20, 30, 40, 50]
    assert {fps for _, fps in shown} == {20.0}


def test_a_fast_simulator_is_shown_in_real_time_but_not_at_every_step():
    shown = []
    config = EnvConfig(kwargs={"fps": 125, "length": 10})
    env = open_filmed(f"{PATH}:Counter", config, lambda *frame: shown.append(frame), 64)
    frames_of(env, 10)
    assert [int(frame[0, 0, 0]) for frame, _ in shown] == [0, 30, 60, 90, 100]  # the last, too
    assert shown[0][1] == pytest.approx(125 / 3)


def test_an_environment_without_pictures_says_so():
    env = open_filmed(f"{PATH}:blind", EnvConfig(), lambda *_: None, 64)
    with pytest.raises(SlipstreamError, match="render_mode='rgb_array'"):
        env.reset(0)


@pytest.mark.parametrize("obs", ["state", "rgb"])
def test_a_mujoco_task_is_seen_large_and_goes_its_way_undisturbed(obs):
    needs_opengl()
    shown = []
    config = EnvConfig(obs=obs, max_episode_steps=12)
    filmed = open_filmed("HalfCheetah-v5", config, lambda *frame: shown.append(frame), 160)
    plain = open_env("HalfCheetah-v5", config, 1, evaluation=True)
    key = next(iter(plain.reset(3)))
    assert np.array_equal(plain.current_obs[key], filmed.reset(3)[key])
    for action in np.random.default_rng(0).uniform(-1, 1, (12, 1, 6)):
        one, other = plain.step(action), filmed.step(action)
        assert np.array_equal(one.next_obs[key], other.next_obs[key])
        assert one.reward == other.reward
    assert len(shown) == 13
    frames = np.stack([frame for frame, _ in shown])
    assert frames.shape == (13, 160, 160, 3)
    assert len({frame.tobytes() for frame in frames}) == 13
    assert frames.std() > 20
    filmed.close()
    plain.close()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"episodes": 0}, "video.episodes is 0"),
        ({"size": 33}, "video.size is 33"),
        ({"enabled": True, "when": ()}, "video.when is empty"),
    ],
)
def test_bad_settings_are_refused(fields, said):
    with pytest.raises(SlipstreamError, match=said):
        VideoConfig(**fields)
