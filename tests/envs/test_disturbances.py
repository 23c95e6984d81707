"""Disturbances change what is seen, never what happens, and come back exactly."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from slipstream.envs.disturbances import DelayObservation, DropObservation, NoiseObservation
from slipstream.envs.probe import ProbeIdentity, ProbeObservation, ProbeTruncation
from slipstream.envs.recorder import EpisodeRecorder
from slipstream.errors import SlipstreamError
from tests.envs.test_resume import Walk, check_exact, make_env

Env = gym.Env[Any, Any]


def make(env_id: str, **kwargs: Any) -> Env:
    return gym.make(env_id, disable_env_checker=True, **kwargs)


def cheetah() -> Env:
    return make("HalfCheetah-v5", max_episode_steps=12)


def lasting() -> Env:
    """Draws no random number at all; observes 0 for ever."""
    return gym.wrappers.TimeLimit(ProbeTruncation(), 12)


def disturbed(make_inner: Callable[[], Env]) -> Env:
    return DelayObservation(DropObservation(NoiseObservation(make_inner(), 0.1), 0.4), 2)


def play(env: Env, episodes: int = 1, steps: int = 10**6, seed: int | None = 0) -> list[np.ndarray]:
    """Episodes of random actions: the observations of each, (steps + 1, n)."""
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(episodes):
        obs, _ = env.reset(seed=seed)
        seed, rows, done = None, [obs], False
        while not done and len(rows) <= steps:
            action = rng.uniform(-1, 1, env.action_space.shape)
            obs, _, terminated, truncated, _ = env.step(action)
            rows.append(obs)
            done = terminated or truncated
        seen.append(np.stack(rows))
    return seen


class Counter(gym.Env[np.ndarray, np.ndarray]):
    """Shows the step, in one array that it writes into again and again."""

    observation_space = gym.spaces.Box(0, 1e6, (1,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = np.zeros(1)
        return self.t, {}

    def step(self, action):
        self.t += 1
        return self.t, 0.0, False, False, {}


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (0, [0, 1, 2, 3, 4, 5, 6]),
        (1, [0, 0, 1, 2, 3, 4, 5]),
        (3, [0, 0, 0, 0, 1, 2, 3]),
        (9, [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_delay(delay, expected):
    env = DelayObservation(ProbeIdentity(lengths=(6, 2), endings=("truncated",)), delay)
    first, second, third = play(env, 3)
    assert first[:, 2].tolist() == expected  # the last observation too
    assert second[:, 2].tolist() == expected[:3]
    # Nothing is left over from the episode before.
    assert [set(rows[:, 1]) for rows in (first, second, third)] == [{0.0}, {1.0}, {2.0}]
    assert play(DelayObservation(Counter(), delay), steps=6)[0][:, 0].tolist() == expected


def test_a_dropped_observation_shows_the_one_seen_last():
    counter = gym.wrappers.TimeLimit(Counter(), 2000)
    for inner in (ProbeIdentity(lengths=(2000,)), counter):
        seen = play(DropObservation(inner, 0.3), 2)[1][:, -1]
        assert seen[0] == 0
        steps = np.arange(len(seen))
        lost = seen != steps
        assert np.array_equal(seen[lost], seen[np.flatnonzero(lost) - 1])
        assert 0.26 < lost[1:].mean() < 0.34  # four standard errors
        # Losses are independent: one follows another as often as it follows none.
        assert abs(lost[2:][lost[1:-1]].mean() - lost[2:][~lost[1:-1]].mean()) < 0.1


def test_the_last_observation_of_an_episode_may_be_dropped():
    env = DropObservation(ProbeIdentity(lengths=(1,)), 0.5)
    last = [rows[-1, 2] for rows in play(env, 60)]
    assert 15 < sum(last) < 45
    assert [rows[0, 2] for rows in play(env, 60)] == [0.0] * 60


@pytest.mark.parametrize(("probability", "expected"), [(0.0, [0, 1, 2, 3]), (1.0, [0, 0, 0, 0])])
def test_drop_at_its_bounds(probability, expected):
    for inner in (ProbeIdentity(lengths=(3,)), Counter()):
        rows = play(DropObservation(inner, probability), steps=3)[0]
        assert rows[:, -1].tolist() == expected


def test_noise_has_the_given_spread_and_no_bias():
    clean = play(make("HalfCheetah-v5", max_episode_steps=400))[0]
    noise = play(NoiseObservation(make("HalfCheetah-v5", max_episode_steps=400), 0.2))[0] - clean
    assert noise.shape == (401, 17)
    assert abs(noise.mean()) < 0.2 * 4 / np.sqrt(noise.size)
    assert abs(noise.std() / 0.2 - 1) < 0.04
    assert abs(noise[-1]).min() > 0  # the last observation too
    together = np.corrcoef(noise.T) - np.eye(17)
    assert abs(together).max() < 0.25  # one draw for each component
    assert abs(np.mean(noise[1:] * noise[:-1])) < 0.2**2 * 0.06  # and for each step


def test_noise_lifts_the_bounds_and_keeps_the_dtype():
    env = NoiseObservation(make("Pendulum-v1"), 3.0)
    assert env.observation_space == gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    rows = play(env)[0]
    assert rows.dtype == np.float32
    assert abs(rows[:, 0]).max() > 1
    assert all(row in env.observation_space for row in rows)


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "Bytes"])
def test_noise_needs_floats(env_id):
    inner = make("FrozenLake-v1") if env_id == "FrozenLake-v1" else Counter()
    if env_id == "Bytes":
        inner.observation_space = gym.spaces.Box(0, 255, (1,), np.uint8)
    with pytest.raises(SlipstreamError, match=r"noise can be added to a Box of floats only"):
        NoiseObservation(inner, 0.1)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5", "Reacher-v5", "Pendulum-v1"])
def test_the_episodes_are_those_of_the_undisturbed_environment(env_id):
    def beneath(env: Env) -> list[np.ndarray]:
        seen: list[np.ndarray] = []
        spy = gym.wrappers.TransformObservation(env, lambda o: seen.append(o) or o, None)
        play(DropObservation(NoiseObservation(spy, 1.0), 0.5), 3)
        return seen

    plain = np.concatenate(play(make(env_id, max_episode_steps=20), 3))
    assert np.array_equal(beneath(make(env_id, max_episode_steps=20)), plain)


@pytest.mark.parametrize("inner", [lasting, cheetah, ProbeObservation, Walk])
def test_every_episode_has_its_own_noise_and_every_seed_the_same(inner):
    if inner is Walk:
        inner = partial(Walk, length=6)

    def noise(seed: int) -> list[np.ndarray]:
        clean: list[np.ndarray] = []
        spy = gym.wrappers.TransformObservation(inner(), lambda o: clean.append(o) or o, None)
        seen = play(NoiseObservation(spy, 1.0), 4, seed=seed)
        beneath = np.split(np.stack(clean), np.cumsum([len(rows) for rows in seen])[:-1])
        return [rows[0] - clear[0] for rows, clear in zip(seen, beneath, strict=True)]

    env = NoiseObservation(inner(), 1.0)
    assert np.array_equal(np.concatenate(play(env, 3)), np.concatenate(play(env, 3)))
    firsts = [float(row[0]) for seed in (0, 1) for row in noise(seed)]
    assert len(set(firsts)) == 8


def test_an_unseeded_environment_is_disturbed_too():
    firsts = {float(play(NoiseObservation(lasting(), 1.0), seed=None)[0][0, 0]) for _ in range(4)}
    assert len(firsts) == 4


def test_stacked_noise_is_independent():
    long = gym.wrappers.TimeLimit(ProbeTruncation(), 2000)
    inner = NoiseObservation(long, 1.0)
    seen: list[np.ndarray] = []
    spy = gym.wrappers.TransformObservation(inner, lambda o: seen.append(o) or o, None)
    total = play(NoiseObservation(spy, 1.0))[0][:, 0]
    first = np.stack(seen)[:, 0]
    assert abs(np.corrcoef(first, total - first)[0, 1]) < 0.1


def pairs(env: EpisodeRecorder, steps: int, seed: int) -> list[tuple[Any, ...]]:
    """Steps of random actions, a new episode begun where one ends."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(steps):
        # In the space's dtype, in which the recorder keeps it.
        action = rng.uniform(-1, 1, env.action_space.shape).astype(env.action_space.dtype)
        obs, reward, terminated, truncated, _ = env.step(action)
        rows.append((obs.tobytes(), float(reward), terminated, truncated))
        if terminated or truncated:
            rows.append(env.reset()[0].tobytes())
    return rows


@pytest.mark.parametrize("before", [0, 7, 12, 30])
@pytest.mark.parametrize("inner", [cheetah, lasting])
def test_a_running_episode_goes_on_exactly(inner, before):
    env = EpisodeRecorder(disturbed(inner))
    env.reset(seed=5)
    pairs(env, before, 0)
    state = env.episode_state()
    again = EpisodeRecorder(disturbed(inner))
    again.pending = state
    obs, exact = again.restore_pending()
    assert exact
    assert obs.tobytes() == state["obs"].tobytes()
    # To the end of the episode and through two more, whose noise follows from the first's.
    expected = pairs(env, 30, 1)
    assert pairs(again, 30, 1) == expected
    assert len(set(map(str, expected))) > 20  # not a constant


@pytest.mark.parametrize("inner", [cheetah, lasting, partial(Walk, length=6)])
def test_a_vector_of_them_goes_on_exactly(inner):
    check_exact(lambda: make_env(partial(disturbed, inner), num_envs=2), 20, 30)


class OwnGenerator(NoiseObservation):
    """What must not be done: a generator kept over episodes."""

    def __init__(self, env):
        super().__init__(env, 0.1)
        self._kept = np.random.default_rng(0)

    def _next(self, obs):
        self._generator = self._kept
        return super()._next(obs)


def test_the_recorder_would_notice_a_generator_that_does_not_come_back():
    env = EpisodeRecorder(OwnGenerator(lasting()))
    env.reset(seed=5)
    pairs(env, 20, 0)
    again = EpisodeRecorder(OwnGenerator(lasting()))
    again.pending = env.episode_state()
    assert again.restore_pending()[1] is False


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("inner", [cheetah, partial(make, "Pendulum-v1"), lasting])
def test_the_wrappers_keep_the_gymnasium_contract(inner):
    env = disturbed(inner)
    check_env(env, skip_render_check=True, skip_close_check=True)
    assert all(row in env.observation_space for row in play(env)[0])
