"""The adapter against a hand-written loop, in every auto-reset dialect."""

import os
import signal
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from hypothesis import given, settings
from hypothesis import strategies as st

from slipstream.envs.probe import ProbeIdentity, identity_envs, identity_reward
from slipstream.envs.vec_env import VecEnv, make_env
from slipstream.errors import SlipstreamError
from tests.envs.torch_envs import TorchDialect


class ManiSkillDialect(VectorWrapper):
    """Resets in the same step; torch tensors; one batch of `final_observation`; no mode told."""

    def __init__(self, env):
        super().__init__(env)
        self.metadata = {}

    def reset(self, *, seed=None, options=None):
        obs, infos = self.env.reset(seed=seed, options=options)
        return torch.as_tensor(obs), infos

    def step(self, actions):
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        done = terminated | truncated
        new = {}
        if done.any():
            final = obs.copy()
            for i in np.flatnonzero(done):
                final[i] = infos["final_obs"][i]
            new = {
                "final_observation": torch.as_tensor(final),
                "_final_observation": torch.as_tensor(done),
                "final_info": infos["final_info"],
            }
        obs, reward = torch.as_tensor(obs), torch.as_tensor(reward)
        return obs, reward, torch.as_tensor(terminated), torch.as_tensor(truncated), new


class OldGymnasiumDialect(VectorWrapper):
    """gymnasium 0.29: object arrays under `final_observation` and `final_info`; no mode told."""

    def __init__(self, env):
        super().__init__(env)
        self.metadata = {}

    def step(self, actions):
        obs, reward, terminated, truncated, infos = self.env.step(actions)
        done = terminated | truncated
        if done.any():
            infos["final_observation"] = infos.pop("final_obs")
            infos["final_info"] = np.array([{} if d else None for d in done], object)
        return obs, reward, terminated, truncated, infos


def sync(mode: AutoresetMode, *, copy: bool = True):
    return lambda factories: SyncVectorEnv(factories, copy=copy, autoreset_mode=mode)


DIALECTS = {
    "same_step": sync(AutoresetMode.SAME_STEP),
    "next_step": sync(AutoresetMode.NEXT_STEP),
    "disabled": sync(AutoresetMode.DISABLED),
    "same_step_no_copy": sync(AutoresetMode.SAME_STEP, copy=False),
    "next_step_no_copy": sync(AutoresetMode.NEXT_STEP, copy=False),
    "disabled_no_copy": sync(AutoresetMode.DISABLED, copy=False),
    "maniskill": lambda f: ManiSkillDialect(sync(AutoresetMode.SAME_STEP)(f)),
    "gymnasium_0.29": lambda f: OldGymnasiumDialect(sync(AutoresetMode.SAME_STEP)(f)),
    "torch_same_step": lambda f: TorchDialect(sync(AutoresetMode.SAME_STEP)(f)),
    "torch_next_step": lambda f: TorchDialect(sync(AutoresetMode.NEXT_STEP)(f)),
    "torch_disabled": lambda f: TorchDialect(sync(AutoresetMode.DISABLED)(f)),
    "ours": list,
}
ASYNC_DIALECTS = {
    mode.name: lambda f, mode=mode: AsyncVectorEnv(f, copy=False, autoreset_mode=mode)
    for mode in AutoresetMode
}


def processes_of(env: VecEnv):
    inner = env._vector_env
    assert isinstance(inner, AsyncVectorEnv)
    return inner.processes


def reference(env: ProbeIdentity, num_steps: int):
    """What one environment does, by the plainest loop: transitions and ended episodes."""
    transitions, episodes = [], []
    obs, _ = env.reset()
    episode_return, length = 0.0, 0
    for _ in range(num_steps):
        next_obs, reward, terminated, truncated, _ = env.step(np.zeros(1))
        transitions.append((tuple(obs), reward, tuple(next_obs), terminated, truncated))
        episode_return, length, obs = episode_return + reward, length + 1, next_obs
        if terminated or truncated:
            episodes.append((episode_return, length))
            obs, _ = env.reset()
            episode_return, length = 0.0, 0
    return transitions, episodes


def drive(env: VecEnv, num_calls: int):
    """What the adapter reports of each environment, in the same form."""
    transitions: list[list[Any]] = [[] for _ in range(env.num_envs)]
    episodes: list[list[Any]] = [[] for _ in range(env.num_envs)]
    obs = env.reset()
    results = []
    for _ in range(num_calls):
        result = env.step(np.zeros((env.num_envs, 1)))
        results.append(result)
        for i in range(env.num_envs):
            if result.acted[i]:
                row = (
                    tuple(obs["state"][i]),
                    result.reward[i],
                    tuple(result.next_obs["state"][i]),
                    result.terminated[i],
                    result.truncated[i],
                )
                transitions[i].append(row)
            # The first observation of an episode is shown exactly where `started` says.
            assert result.started[i] == (result.obs["state"][i][2] == 0)
            if not result.started[i]:
                assert np.array_equal(result.obs["state"][i], result.next_obs["state"][i])
        for episode in result.episodes:
            assert episode.success is None
            episodes[episode.env_index].append((episode.episode_return, episode.length))
        assert env.current_obs is result.obs
        obs = result.obs
    # Nothing kept was overwritten later: every row still says when it was made.
    for i in range(env.num_envs):
        rows = [(r.next_obs["state"][i], r.reward[i]) for r in results if r.acted[i]]
        assert [(tuple(o), r) for o, r in rows] == [(row[2], row[1]) for row in transitions[i]]
    return transitions, episodes


def check_against_reference(make_vector, lengths, endings, num_calls):
    env = make_env(make_vector(identity_envs(lengths, endings)))
    transitions, episodes = drive(env, num_calls)
    env.close()
    for i, single in enumerate(identity_envs(lengths, endings)):
        expected, ended = reference(single(), len(transitions[i]))
        assert transitions[i] == expected
        assert episodes[i] == ended
        # A call that only resets is not a transition; every other call is.
        resets = num_calls - len(transitions[i])
        last_ended = bool(expected) and (expected[-1][3] or expected[-1][4])
        assert resets in ((0,) if not resets else (len(ended), len(ended) - last_ended))


lengths_of_envs = st.lists(
    st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=4
)
endings_of_envs = st.lists(
    st.sampled_from(["terminated", "truncated", "both"]), min_size=1, max_size=3
)


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=40, deadline=None)
@given(lengths=lengths_of_envs, endings=endings_of_envs, num_calls=st.integers(1, 20))
def test_every_dialect_equals_the_plain_loop(dialect, lengths, endings, num_calls):
    check_against_reference(DIALECTS[dialect], lengths, endings, num_calls)


@pytest.mark.parametrize("dialect", ASYNC_DIALECTS)
def test_every_dialect_in_processes_equals_the_plain_loop(dialect):
    lengths = [[3, 1, 4], [2, 2], [5]]
    check_against_reference(ASYNC_DIALECTS[dialect], lengths, ["terminated", "both"], 17)


@pytest.mark.parametrize("dialect", ["next_step", "next_step_no_copy"])
def test_next_step_dialect_spends_one_call_on_each_reset(dialect):
    env = make_env(DIALECTS[dialect](identity_envs([[2], [3]])))
    env.reset()
    acted = [env.step(np.zeros((2, 1))).acted.tolist() for _ in range(6)]
    assert [row[0] for row in acted] == [True, True, False, True, True, False]
    assert [row[1] for row in acted] == [True, True, True, False, True, True]


def test_both_ends_at_once_are_both_kept():
    env = make_env(identity_envs([[1]], ["both"]))
    env.reset()
    result = env.step(np.zeros((1, 1)))
    assert result.terminated[0] and result.truncated[0]
    assert result.terminated.dtype == result.truncated.dtype == bool
    assert result.reward.dtype == np.float32
    assert result.reward[0] == identity_reward(0, 0, 1)


class OneBuffer(gym.Env):
    """Returns the same array every time, and writes into it."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.buffer = getattr(self, "buffer", np.zeros(1, np.float32))
        self.buffer[:] = 0
        return self.buffer, {}

    def step(self, action):
        self.buffer += 1
        return self.buffer, 0.0, bool(self.buffer[0] == 2), False, {}


@pytest.mark.parametrize("parallel", [False, True])
def test_an_env_that_reuses_its_buffer_still_shows_its_last_observation(parallel):
    env = make_env(OneBuffer, num_envs=2, parallel=parallel)
    env.reset()
    env.step(np.zeros((2, 1)))
    result = env.step(np.zeros((2, 1)))
    env.close()
    assert result.next_obs["state"].ravel().tolist() == [2, 2]
    assert result.obs["state"].ravel().tolist() == [0, 0]


class Report(gym.Env):
    """Reports each action it was given, and success under a key at given steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2, 2), np.float64)

    def __init__(
        self,
        low: Any = -1.0,
        high: Any = 1.0,
        shape=(1,),
        key: str | None = "success",
        success_at=(),
        length=3,
    ):
        self.action_space = gym.spaces.Box(low, high, shape, np.float32)
        self.key, self.success_at, self.length = key, success_at, length
        self.received = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros((2, 2)), {} if self.key is None else {self.key: True}

    def step(self, action):
        self.t += 1
        self.received.append(np.array(action))
        info = {} if self.key is None else {self.key: self.t in self.success_at}
        return np.full((2, 2), self.t), 1.0, self.t == self.length, False, info


@pytest.mark.parametrize("wrap", [list, *(sync(mode) for mode in AutoresetMode)])
@pytest.mark.parametrize(
    ("key", "success_at", "expected"),
    [("success", (2,), True), ("is_success", (3,), True), ("success", (), False), (None, (), None)],
)
def test_success_is_true_if_reported_at_any_step(wrap, key, success_at, expected):
    env = make_env(wrap([lambda: Report(key=key, success_at=success_at)]))
    env.reset()
    episodes = [e for _ in range(8) for e in env.step(np.zeros((1, 1))).episodes]
    assert len(episodes) == 2
    assert all(e.success is expected and e.length == e.episode_return == 3 for e in episodes)


@pytest.mark.parametrize("wrap", [list, *(sync(mode) for mode in AutoresetMode)])
def test_success_is_told_apart_between_envs(wrap):
    env = make_env(
        wrap([lambda: Report(key=None), lambda: Report(success_at=(1,)), lambda: Report(length=2)])
    )
    env.reset()
    episodes = [e for _ in range(8) for e in env.step(np.zeros((3, 1))).episodes]
    told = {(e.env_index, e.success) for e in episodes}
    assert told == {(0, None), (1, True), (2, False)}


class PaysForResets(VectorWrapper):
    def step(self, actions):
        obs, _, terminated, truncated, infos = self.env.step(actions)
        return obs, np.ones(self.num_envs), terminated, truncated, infos


def test_a_reward_for_a_mere_reset_is_dropped():
    env = make_env(PaysForResets(sync(AutoresetMode.NEXT_STEP)(identity_envs([[2]]))))
    env.reset()
    results = [env.step(np.zeros((1, 1))) for _ in range(5)]
    assert [float(result.reward[0]) for result in results] == [1, 1, 0, 1, 1]
    assert [e.episode_return for r in results for e in r.episodes] == [2, 2]


def test_actions_are_clipped_and_rescaled_to_the_bounds_of_the_env():
    low, high = np.array([[-2.0, 0.0]], np.float32), np.array([[4.0, 0.1]], np.float32)
    made = Report(low, high, (1, 2))
    env = make_env(lambda: made)
    assert env.spec.action_low == (-2.0, 0.0)
    assert env.spec.action_dim == 2
    assert env.spec.obs["state"].shape == (4,)
    env.reset()
    for action in ([-1, -1], [1, 1], [0, 0], [-7, 9]):
        env.step(np.array([action], np.float32))
    received = np.array(made.received)
    assert received.shape == (4, 1, 2)
    assert received.dtype == np.float32
    expected = [low, high, (low + high) / 2, [[low[0, 0], high[0, 1]]]]
    assert np.array_equal(received, np.array(expected, np.float32))


class Suicide(Report):
    def step(self, action):
        os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


@given(st.floats(-1, 1, width=32))
def test_actions_of_an_env_that_uses_the_unit_interval_pass_unchanged(value):
    made = Report()
    env = make_env(lambda: made)
    env.reset()
    env.step(np.array([[value]], np.float32))
    assert made.received[0][0] == np.float32(value)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros((2, 1)), r"takes actions of shape \(1, 1\), got \(2, 1\)"),
        (np.array([[np.nan]]), "component 0 of the action for environment 0 is nan"),
    ],
)
def test_a_bad_action_is_refused(action, message):
    env = make_env(Report)
    env.reset()
    with pytest.raises(SlipstreamError, match=message):
        env.step(action)


class Broken(gym.Env):
    """One number goes wrong at one step."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, where=None, value=np.nan, at=2):
        self.where, self.value, self.at = where, value, at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def _obs(self):
        obs = np.zeros(3)
        if self.where == "obs" and self.t == self.at:
            obs[1] = self.value
        return obs

    def step(self, action):
        self.t += 1
        reward = self.value if self.where == "reward" and self.t == self.at else 0.0
        return self._obs(), reward, self.t == 2, False, {}


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e300])
@pytest.mark.parametrize("mode", [None, *AutoresetMode])
def test_a_number_that_is_not_finite_is_refused(mode, value):
    wrap = list if mode is None else sync(mode)
    for where, message in (
        ("obs", r"in component 1 of the observation 'state' in environment 1 at step 2"),
        ("reward", r"the reward .* in environment 1 at step 2 of its episode"),
    ):
        env = make_env(wrap([Broken, lambda where=where: Broken(where, value)]))
        env.reset()
        env.step(np.zeros((2, 1)))
        with pytest.raises(SlipstreamError, match=message) as caught:
            env.step(np.zeros((2, 1)))
        assert "\n" not in str(caught.value)


def test_a_bad_first_observation_is_refused():
    env = make_env(lambda: Broken("obs", at=0))
    with pytest.raises(SlipstreamError, match="at step 0 of its episode"):
        env.reset()


class WithSpaces(gym.Env):
    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}


BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (
            gym.spaces.Dict(a=BOX, b=gym.spaces.Discrete(2)),
            BOX,
            r"key 'b'.*observation space Discrete\(2\).*FlattenObservation",
        ),
        (gym.spaces.Dict(a=gym.spaces.Dict(b=BOX)), BOX, "key 'a'.*FlattenObservation"),
        (gym.spaces.Text(3), BOX, "observation space Text.*only Box observations"),
        (BOX, gym.spaces.Discrete(2), r"action space Discrete\(2\).*continuous actions"),
        (BOX, gym.spaces.MultiBinary(2), r"action space MultiBinary\(2\)"),
        (BOX, gym.spaces.Box(0, 5, (1,), np.int64), "action space Box.*a Box of floats"),
        (
            BOX,
            gym.spaces.Box(np.array([-1, -np.inf]), np.array([1, 1]), dtype=np.float64),
            r"unbounded action: component 1 lies in \[-inf, 1.0\].*finite bounds",
        ),
    ],
)
@pytest.mark.parametrize("parallel", [False, True])
def test_unsupported_spaces_are_named(observation_space, action_space, message, parallel):
    with pytest.raises(SlipstreamError, match=message) as caught:
        make_env(lambda: WithSpaces(observation_space, action_space), parallel=parallel)
    assert "\n" not in str(caught.value)


def test_unsupported_spaces_of_a_vector_env_are_named():
    with pytest.raises(SlipstreamError, match=r"CartPole-v1 has the action space Discrete\(2\)"):
        make_env(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"))


def test_images_stay_uint8():
    space = gym.spaces.Box(0, 255, (4, 5, 3), np.uint8)
    env = make_env(lambda: WithSpaces(space, BOX), num_envs=2)
    obs = env.reset(seed=0)
    assert list(obs) == ["rgb"]
    assert obs["rgb"].shape == (2, 4, 5, 3)
    assert obs["rgb"].dtype == np.uint8
    assert env.spec.obs["rgb"].num_bytes == 60


def test_seeds():
    one = make_env("Pendulum-v1", num_envs=3)
    first = one.reset(seed=5)["state"]
    assert np.array_equal(first, one.reset(seed=[5, 6, 7])["state"])
    assert np.array_equal(first[1:], one.reset(seed=cast("int", np.int64(6)))["state"][:2])
    assert not np.array_equal(one.reset()["state"], first)
    with pytest.raises(SlipstreamError, match="2 seeds for 3 environments"):
        one.reset(seed=[1, 2])
    with pytest.raises(SlipstreamError, match="must not be negative, got -1"):
        one.reset(seed=-1)


def test_use_before_reset_is_refused():
    env = make_env("Pendulum-v1")
    with pytest.raises(SlipstreamError, match=r"stepped before reset\(\)"):
        env.step(np.zeros((1, 1)))
    with pytest.raises(SlipstreamError, match=r"no state before reset\(\)"):
        env.state_dict()


class LostEnds(VectorWrapper):
    """Follows NEXT_STEP, but does not say so."""

    def __init__(self, env):
        super().__init__(env)
        self.metadata = {}


def test_a_vector_env_that_does_not_tell_its_mode_is_found_out():
    env = make_env(LostEnds(sync(AutoresetMode.NEXT_STEP)(identity_envs([[1]]))))
    env.reset()
    with pytest.raises(SlipstreamError, match=r"metadata\['autoreset_mode'\]"):
        env.step(np.zeros((1, 1)))


def test_an_unknown_mode_is_refused():
    inner: VectorEnv = LostEnds(sync(AutoresetMode.NEXT_STEP)(identity_envs([[1]])))
    inner.metadata = {"autoreset_mode": "sometimes"}
    with pytest.raises(SlipstreamError, match="'sometimes': use one of"):
        make_env(inner)


def test_the_time_limit_is_known_and_may_be_absent():
    assert make_env("Pendulum-v1").spec.max_episode_steps == 200
    assert make_env("Pendulum-v1", env_kwargs={"max_episode_steps": 7}).spec.max_episode_steps == 7
    endless = make_env("Pendulum-v1", env_kwargs={"max_episode_steps": -1})
    assert endless.spec.max_episode_steps is None
    endless.reset(seed=0)
    assert not any(endless.step(np.zeros((1, 1))).truncated[0] for _ in range(210))
    vector = gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync")
    assert make_env(vector).spec.max_episode_steps == 200
    assert make_env(Report).spec.env_id == "Report"


def test_ctrl_c_leaves_the_processes_alive_to_be_saved():
    env = make_env("Pendulum-v1", num_envs=2, parallel=True)
    env.reset(seed=0)
    for process in processes_of(env):
        os.kill(cast("int", process.pid), signal.SIGINT)
    env.step(np.zeros((2, 1)))
    assert len(env.state_dict()["sub_envs"]) == 2
    env.close()


@pytest.mark.parametrize("when", ["between_steps", "in_step"])
def test_a_dead_process_is_reported(when):
    env = make_env([Report, Suicide] if when == "in_step" else [Report, Report], parallel=True)
    env.reset(seed=0)
    processes = processes_of(env)
    if when == "between_steps":
        processes[1].kill()
        processes[1].join()
    with pytest.raises(SlipstreamError, match="a process that runs Report died"):
        env.step(np.zeros((2, 1)))
    env.close()
    env.close()
    assert not any(process.is_alive() for process in processes)


def test_closing_after_a_process_died_ends_the_others():
    env = make_env("Pendulum-v1", num_envs=2, parallel=True)
    env.reset(seed=0)
    processes = processes_of(env)
    processes[0].kill()
    processes[0].join()
    env.close()
    assert not any(process.is_alive() for process in processes)
