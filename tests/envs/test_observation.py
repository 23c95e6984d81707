"""The policy sees what the configuration says; the privileged view is full, clean and present."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from slipstream.envs.observation import ObservationConfig, observe
from slipstream.envs.probe import ProbeIdentity
from slipstream.envs.recorder import EpisodeRecorder
from slipstream.errors import SlipstreamError
from tests.envs.counting import Counting
from tests.envs.test_disturbances import Counter, make, play

EVERYTHING = ObservationConfig("0-3,8", noise=0.1, drop=0.3, delay=2)


def test_nothing_to_do_leaves_the_environment_alone():
    env = make("FrozenLake-v1")
    assert observe(env, ObservationConfig(), privileged=False) is env


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (ObservationConfig(mask="positions"), ["MaskObservation"]),
        (ObservationConfig(noise=0.1), ["NoiseObservation"]),
        (ObservationConfig(drop=0.1), ["DropObservation"]),
        (ObservationConfig(delay=1), ["DelayObservation"]),
        (
            EVERYTHING,
            ["DelayObservation", "DropObservation", "MaskObservation", "NoiseObservation"],
        ),
    ],
)
def test_only_what_is_needed_is_wrapped_in_order(config, names):
    env = plain = make("Hopper-v5")
    env = observe(env, config, privileged=False)
    assert isinstance(env.observation_space, gym.spaces.Box)
    found = []
    while env is not plain:
        assert isinstance(env, gym.Wrapper)
        found.append(type(env).__name__)
        env = env.env
    assert found == names


def views(config: ObservationConfig, **kwargs: Any) -> gym.Env[Any, Any]:
    return observe(make("HalfCheetah-v5", **kwargs), config, privileged=True)


def episodes(env: gym.Env[Any, Any], num: int) -> list[dict[str, np.ndarray]]:
    """Like `play`, of dict observations."""
    rng = np.random.default_rng(0)
    rows, seed = [], 0
    for _ in range(num):
        obs, _ = env.reset(seed=seed)
        rows.append(obs)
        done, seed = False, None
        while not done:
            action = rng.uniform(-1, 1, env.action_space.shape)
            obs, _, terminated, truncated, _ = env.step(action)
            rows.append(obs)
            done = terminated or truncated
    return rows


def test_both_views_are_right_from_the_first_observation_to_the_last():
    limit = {"max_episode_steps": 9}
    plain = np.concatenate(play(make("HalfCheetah-v5", **limit), 3))
    alone = np.concatenate(play(observe(make("HalfCheetah-v5", **limit), EVERYTHING, False), 3))
    env = views(EVERYTHING, **limit)
    rows = episodes(env, 3)
    assert all(row in env.observation_space for row in rows)
    assert np.array_equal([row["privileged"] for row in rows], plain)
    # The policy sees the same with a privileged view beside it as without.
    assert np.array_equal([row["state"] for row in rows], alone)
    assert alone.shape == (30, 5)
    # Noise on everything but what is a repetition.
    assert not np.isin(alone, plain).any()


def test_a_mask_alone_shows_the_present_exactly():
    for row in episodes(views(ObservationConfig("paper"), max_episode_steps=9), 2):
        kept = row["privileged"][[0, 1, 2, 3, 8, 9, 10, 11, 12]]
        assert row["state"].tolist() == kept.tolist()


def test_delay_applies_to_the_policy_alone():
    env = observe(ProbeIdentity(lengths=(4,)), ObservationConfig("2", delay=2), privileged=True)
    rows = episodes(env, 2)
    assert [row["state"].tolist() for row in rows] == [[0], [0], [0], [1], [2]] * 2
    assert [row["privileged"][2] for row in rows] == [0, 1, 2, 3, 4] * 2


def test_the_visible_noise_does_not_depend_on_the_mask():
    def seen(mask: str) -> np.ndarray:
        config = ObservationConfig(mask, noise=0.1, drop=0.3)
        env = observe(make("HalfCheetah-v5", max_episode_steps=9), config, privileged=False)
        return np.concatenate(play(env, 2))

    assert np.array_equal(seen("none")[:, [1, 8]], seen("1,8"))


def test_with_nothing_hidden_both_views_are_equal():
    for row in episodes(views(ObservationConfig(), max_episode_steps=5), 1):
        assert np.array_equal(row["state"], row["privileged"])
        assert not np.shares_memory(row["state"], row["privileged"])


def test_an_array_that_is_written_into_again_does_not_change_the_views():
    env = observe(Counter(), ObservationConfig(drop=1.0), privileged=True)
    rows = [env.reset(seed=0)[0], *(env.step(np.zeros(1))[0] for _ in range(3))]
    assert [row["state"].tolist() for row in rows] == [[0], [0], [0], [0]]
    assert [row["privileged"].tolist() for row in rows] == [[0], [1], [2], [3]]


def test_a_masked_and_disturbed_episode_goes_on_exactly():
    def fresh() -> EpisodeRecorder:
        return EpisodeRecorder(observe(make("HalfCheetah-v5"), EVERYTHING, privileged=False))

    def steps(env: EpisodeRecorder) -> list[bytes]:
        actions = np.random.default_rng(1).uniform(-1, 1, (10, 6)).astype(np.float32)
        return [env.step(action)[0].tobytes() for action in actions]

    env = fresh()
    env.reset(seed=0)
    env.reset()
    steps(env)
    again = fresh()
    again.pending = env.episode_state()
    assert again.restore_pending()[1] is True
    assert steps(again) == steps(env)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"noise": -0.1}, r"observe\.noise is -0\.1; it must be at least 0"),
        ({"noise": float("nan")}, r"observe\.noise is nan"),
        ({"noise": float("inf")}, r"observe\.noise is inf"),
        ({"drop": 1.5}, r"observe\.drop is 1\.5; it must be at least 0 and at most 1"),
        ({"drop": -0.5}, r"observe\.drop is -0\.5"),
        ({"delay": -1}, r"observe\.delay is -1; it must be at least 0"),
        ({"mask": "postions"}, "'postions' is not a number or a range"),
        ({"mask": ""}, "the mask is empty"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(SlipstreamError, match=message):
        ObservationConfig(**values)


@pytest.mark.parametrize(
    ("config", "privileged"),
    [(ObservationConfig(), True), (ObservationConfig("0"), False), (EVERYTHING, True)],
)
def test_what_is_no_vector_is_refused(config, privileged):
    with pytest.raises(SlipstreamError, match="FrozenLake-v1 has a Discrete observation"):
        observe(make("FrozenLake-v1"), config, privileged)


SEVERAL = gym.spaces.Dict(
    image=gym.spaces.Box(0, 255, (2, 2, 3), np.uint8),
    joints=gym.spaces.Box(-np.inf, np.inf, (3,)),
    privileged=gym.spaces.Box(-np.inf, np.inf, (2,)),
)


class Several(Counting):
    """Shows an image, a vector and what is privileged; all of them tell the step's number."""

    observation_space = SEVERAL
    action_space = gym.spaces.Box(-1, 1, (1,))

    def show(self) -> dict[str, np.ndarray]:
        t = self.t
        return {
            "image": np.full((2, 2, 3), t, np.uint8),
            "joints": np.array([t, 10, 20], np.float32),
            "privileged": np.array([t, -1], np.float32),
        }


def test_a_privileged_key_of_its_own_stays_as_it_is():
    config = ObservationConfig("0,2", noise=0.01, delay=2)
    env = observe(Several(), config, privileged=True)
    rows = episodes(env, 2)
    assert all(row in env.observation_space for row in rows)
    assert [row["privileged"].tolist() for row in rows] == [[t, -1] for t in range(5)] * 2
    late = [0, 0, 0, 1, 2] * 2
    # The image and the joints that are late are of the same step.
    assert [int(row["image"].max()) for row in rows] == late
    seen = np.array([row["joints"] for row in rows])
    assert np.allclose(seen, [[t, 20] for t in late], atol=0.1)
    assert not np.isin(seen, [0, 1, 2, 20]).any()


def test_what_is_lost_is_lost_whole():
    rows = episodes(observe(Several(), ObservationConfig(drop=0.5), privileged=False), 8)
    steps = [int(row["image"].max()) for row in rows]
    assert steps == [int(row["joints"][0]) for row in rows]
    assert steps != list(range(5)) * 8


@pytest.mark.parametrize(
    ("shown", "config", "message"),
    [
        (("image",), ObservationConfig(noise=0.1), "shows images alone"),
        (("image",), ObservationConfig("0"), "has a Dict observation of image, but only a vector"),
        (("joints",), ObservationConfig(), "has a Dict observation of joints.*key 'privileged'"),
        (("privileged",), ObservationConfig(), "shows the policy nothing"),
    ],
)
def test_a_dict_that_lacks_what_is_needed_is_refused(shown, config, message):
    env = Several()
    env.observation_space = gym.spaces.Dict({key: SEVERAL[key] for key in shown})
    with pytest.raises(SlipstreamError, match=message):
        observe(env, config, privileged=not config.hides)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("privileged", [False, True])
@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Ant-v5"])
def test_the_wrapped_environment_keeps_the_gymnasium_contract(env_id, privileged):
    env = observe(make(env_id), EVERYTHING, privileged)
    check_env(env, skip_render_check=True, skip_close_check=True)
