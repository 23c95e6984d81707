"""The adapter against a hand-written loop, in every auto-reset dialect."""

from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv, VectorWrapper
from hypothesis import given, settings
from hypothesis import strategies as st

from slipstream.envs.making import make_env
from slipstream.envs.probe import ProbeIdentity, identity_envs, identity_reward
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from tests.envs.torch_envs import TorchDialect
from tests.envs.vectors import Report, sync


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
