"""Saved and restored, an environment goes on as if it had never stopped."""

import json
import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from slipstream.envs.making import make_env
from slipstream.envs.probe import identity_envs
from slipstream.errors import SlipstreamError

MUJOCO = [
    "Ant-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "Pusher-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Walker2d-v5",
]


def through_files(state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint keeps it: arrays apart, the rest as JSON."""
    arrays = {}

    def split(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            return {key: split(inner, f"{path}/{key}") for key, inner in value.items()}
        if isinstance(value, np.ndarray):
            assert value.dtype != object
            arrays[path] = value.tobytes(), value.dtype, value.shape
            return {"__array__": path}
        return value

    def join(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "__array__" in value:
            data, dtype, shape = arrays[value["__array__"]]
            return np.frombuffer(data, dtype).reshape(shape)
        return {key: join(inner) for key, inner in value.items()}

    return join(json.loads(json.dumps(split(state, ""))))


def actions_for(env, num_steps, seed):
    return np.random.default_rng(seed).uniform(
        -1, 1, (num_steps, env.num_envs, env.spec.action_dim)
    )


def run(env, actions):
    return [env.step(action) for action in actions]


def assert_same(results, expected):
    assert len(results) == len(expected)
    for a, b in zip(results, expected, strict=True):
        for name in ("reward", "terminated", "truncated", "started", "acted"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
        assert a.obs["state"].tobytes() == b.obs["state"].tobytes()
        assert a.next_obs["state"].tobytes() == b.next_obs["state"].tobytes()
        assert a.episodes == b.episodes


def check_exact(make, before, after):
    env = make()
    env.reset(seed=3)
    ended = sum(len(result.episodes) for result in run(env, actions_for(env, before, 0)))
    state = through_files(env.state_dict())
    obs = env.current_obs["state"]
    actions = actions_for(env, after, 1)
    expected = run(env, actions)
    env.close()
    again = make()
    assert again.load_state_dict(state) is True
    assert not again.restarted.any()
    assert again.current_obs["state"].tobytes() == obs.tobytes()
    # Saving again at once gives the same state: nothing counted the replayed steps.
    assert json.dumps(again.state_dict(), default=np.ndarray.tolist) == json.dumps(
        state, default=np.ndarray.tolist
    )
    assert_same(run(again, actions), expected)
    again.close()
    return ended, sum(len(result.episodes) for result in expected)


@pytest.mark.parametrize("env_id", [*MUJOCO, "Pendulum-v1", "MountainCarContinuous-v0"])
def test_every_env_goes_on_bit_for_bit(env_id):
    limit = {"max_episode_steps": 25}
    ended = check_exact(lambda: make_env(env_id, env_kwargs=limit), 40, 30)
    # Across an episode's end both before the save and after it.
    assert min(ended) >= 1


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("env_id", ["Hopper-v5", "Pendulum-v1"])
def test_several_envs_go_on_bit_for_bit(env_id, parallel):
    check_exact(lambda: make_env(env_id, num_envs=3, parallel=parallel), 50, 40)


@pytest.mark.parametrize("before", [0, 24, 25])
def test_saving_at_the_edges_of_an_episode(before):
    limit = {"max_episode_steps": 25}
    check_exact(lambda: make_env("Hopper-v5", num_envs=2, env_kwargs=limit), before, 30)


def test_an_unseeded_first_episode_is_restored_too():
    env = make_env("Pendulum-v1", num_envs=2)
    env.reset()
    run(env, actions_for(env, 5, 0))
    state = through_files(env.state_dict())
    actions = actions_for(env, 210, 1)
    expected = run(env, actions)
    again = make_env("Pendulum-v1", num_envs=2)
    assert again.load_state_dict(state)
    assert_same(run(again, actions), expected)


def test_a_used_env_can_be_put_back():
    env = make_env("Pendulum-v1", num_envs=2)
    env.reset(seed=0)
    run(env, actions_for(env, 5, 0))
    state = through_files(env.state_dict())
    actions = actions_for(env, 210, 1)
    expected = run(env, actions)
    assert env.load_state_dict(state)
    assert_same(run(env, actions), expected)


class Walk(gym.Env):
    """A random walk whose steps come from a generator of the given kind."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (), np.float64)

    def __init__(self, kind="own", length=None):
        self.kind, self.length = kind, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None and isinstance(self.kind, type):
            self.np_random = np.random.Generator(self.kind(seed))
        self.x, self.t = np.zeros(1), 0
        return self.x.copy(), {}

    def step(self, action):
        self.t += 1
        draw = random.random() if self.kind == "global" else self.np_random.normal()
        self.x += float(action) + draw
        ended = self.length is not None and self.t == self.length
        return self.x.copy(), float(self.x[0]), ended, False, {"success": self.t == 2}


@pytest.mark.parametrize("kind", ["own", np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_randomness_within_an_episode_is_restored(kind):
    check_exact(lambda: make_env(lambda: Walk(kind, length=6), num_envs=2), 10, 20)


def test_success_of_the_running_episode_is_restored():
    env = make_env(lambda: Walk(length=6))
    env.reset(seed=0)
    run(env, actions_for(env, 3, 0))
    again = make_env(lambda: Walk(length=6))
    again.load_state_dict(through_files(env.state_dict()))
    episodes = [e for result in run(again, actions_for(env, 9, 0)) for e in result.episodes]
    assert [(e.length, e.success) for e in episodes] == [(6, True), (6, True)]


def test_an_env_that_cannot_be_replayed_says_so_and_starts_afresh():
    def make():
        return make_env([Walk, lambda: Walk("global"), Walk])

    env = make()
    env.reset(seed=0)
    run(env, actions_for(env, 4, 0))
    state = through_files(env.state_dict())
    again = make()
    assert again.load_state_dict(state) is False
    assert again.restarted.tolist() == [False, True, False]
    expected = env.current_obs["state"].copy()
    expected[1] = 0.0  # the first observation of a new episode
    assert np.array_equal(again.current_obs["state"], expected)
    after = again.state_dict()
    assert after["episode_length"].tolist() == [4, 0, 4]
    assert after["episode_return"][1] == 0
    assert after["success"].tolist() == [1, -1, 1]
    # A new episode everywhere: nothing is marked as restarted any longer.
    again.reset()
    assert not again.restarted.any()


def test_the_fresh_start_is_the_same_each_time():
    env = make_env("Pendulum-v1", num_envs=2)
    env.reset(seed=0)
    run(env, actions_for(env, 4, 0))
    state = env.state_dict()
    state["sub_envs"]["0"]["obs"] += 1  # no replay can match this
    starts = []
    for _ in range(2):
        again = make_env("Pendulum-v1", num_envs=2)
        assert again.load_state_dict(through_files(state)) is False
        assert again.restarted.tolist() == [True, False]
        starts.append(again.current_obs["state"])
    assert np.array_equal(*starts)
    assert not np.array_equal(starts[0][0], env.current_obs["state"][0])


def test_an_env_that_ends_early_in_the_replay_starts_afresh():
    saved = make_env(lambda: Walk(length=9))
    saved.reset(seed=0)
    run(saved, actions_for(saved, 5, 0))
    changed = make_env(lambda: Walk(length=4))
    assert changed.load_state_dict(through_files(saved.state_dict())) is False
    assert changed.current_obs["state"].tolist() == [[0.0]]
    lengths = [e.length for r in run(changed, actions_for(saved, 8, 0)) for e in r.episodes]
    assert lengths == [4, 4]


def test_a_state_hidden_from_the_generator_is_noticed():
    # The count of episodes lives in the environment, beyond the running episode.
    env = make_env(identity_envs([[3], [9]]))
    env.reset(seed=0)
    run(env, actions_for(env, 5, 0))
    again = make_env(identity_envs([[3], [9]]))
    assert again.load_state_dict(through_files(env.state_dict())) is False
    assert again.restarted.tolist() == [True, False]


class Hides(Walk):
    """Shows nothing; differs in its rewards, or in how often it draws."""

    def step(self, action):
        if self.kind == "reward":
            return np.zeros(1), random.random(), False, False, {}
        for _ in range(random.randrange(1000)):
            self.np_random.normal()
        return np.zeros(1), 0.0, False, False, {}


@pytest.mark.parametrize("kind", ["reward", "draws"])
def test_a_difference_that_the_observation_hides_is_noticed(kind):
    env = make_env(lambda: Hides(kind))
    env.reset(seed=0)
    run(env, actions_for(env, 5, 0))
    again = make_env(lambda: Hides(kind))
    assert again.load_state_dict(through_files(env.state_dict())) is False


class WritesIntoItsAction(gym.Env):
    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = np.zeros(1, np.float32)
        return self.x.copy(), {}

    def step(self, action):
        self.x += action
        action *= 0
        return self.x.copy(), 0.0, False, False, {}


def test_an_env_that_writes_into_its_action_is_replayed():
    check_exact(lambda: make_env(WritesIntoItsAction, num_envs=2), 5, 5)


def test_a_vector_env_made_elsewhere_starts_afresh():
    def make():
        return make_env(SyncVectorEnv([lambda: gym.make("Pendulum-v1")] * 2))

    env = make()
    env.reset(seed=0)
    env.step(np.zeros((2, 1)))
    again = make()
    assert again.load_state_dict(through_files(env.state_dict())) is False
    assert again.restarted.all()
    assert again.current_obs["state"].shape == (2, 3)


@pytest.mark.parametrize(("env_id", "num_envs"), [("Pendulum-v1", 3), ("InvertedPendulum-v5", 2)])
def test_a_foreign_state_is_refused(env_id, num_envs):
    env = make_env("Pendulum-v1", num_envs=2)
    env.reset(seed=0)
    with pytest.raises(SlipstreamError, match=f"2 x Pendulum-v1, but this run has {num_envs} x"):
        make_env(env_id, num_envs=num_envs).load_state_dict(env.state_dict())
