"""A run's environments: several observations side by side, and what came before."""

import numpy as np
import pytest

from slipstream.envs.observation import ObservationConfig
from slipstream.envs.setup import EnvConfig, open_env
from slipstream.errors import SlipstreamError

PREVIOUS = EnvConfig(prev_action=True, prev_reward=True, differences=True, max_episode_steps=4)


@pytest.mark.parametrize("parallel", [False, True])
def test_the_privileged_observation_stands_beside_the_masked_one(parallel):
    observe = ObservationConfig(mask="0,2", delay=1)
    config = EnvConfig(observe=observe, differences=False, max_episode_steps=3)
    env = open_env("Pendulum-v1", config, 2, parallel, privileged=True)
    plain = open_env("Pendulum-v1", EnvConfig(max_episode_steps=3), 2)
    assert {key: value.shape for key, value in env.spec.obs.items()} == {
        "state": (2,),
        "privileged": (3,),
    }
    whole = plain.reset(7)["state"]
    seen = [whole[:, [0, 2]]]
    obs, result = env.reset(7), None
    np.testing.assert_array_equal(obs["privileged"], whole)
    np.testing.assert_array_equal(obs["state"], seen[0])
    for t in range(1, 4):
        action = np.full((2, 1), 0.3, np.float32)
        result, expected = env.step(action), plain.step(action)
        np.testing.assert_array_equal(result.next_obs["privileged"], expected.next_obs["state"])
        np.testing.assert_array_equal(result.next_obs["state"], seen[-1])  # one step late
        seen.append(expected.next_obs["state"][:, [0, 2]])
        assert result.truncated.all() == (t == 3)
    assert result is not None
    # A new episode has begun: the delayed view begins anew too, the last one was kept apart.
    np.testing.assert_array_equal(result.obs["state"], result.obs["privileged"][:, [0, 2]])
    assert not np.array_equal(result.obs["state"], result.next_obs["state"])
    env.close()
    plain.close()


def test_previous_action_and_reward_are_those_of_the_step_before():
    env = open_env("Pendulum-v1", PREVIOUS, 2)
    assert env.spec.obs["prev_action"].shape == env.spec.obs["prev_reward"].shape == (1,)
    obs = env.reset(0)
    assert not obs["prev_action"].any() and not obs["prev_reward"].any()
    for t in range(1, 5):
        action = np.array([[0.5], [-3.0]])
        result = env.step(action)
        assert result.next_obs["prev_action"].tolist() == [[0.5], [-1.0]]  # as it was taken
        np.testing.assert_array_equal(result.next_obs["prev_reward"][:, 0], result.reward)
        assert result.reward.all()
        if t < 4:
            np.testing.assert_array_equal(result.obs["prev_action"], [[0.5], [-1.0]])
        else:  # an episode ended: its last observation knows, the next one's first does not
            assert not result.obs["prev_action"].any() and not result.obs["prev_reward"].any()


def test_differences_are_those_to_what_was_seen_a_step_before():
    # Where a mask hides something they are shown unasked.
    config = EnvConfig(observe=ObservationConfig(mask="0,2"), max_episode_steps=3)
    env = open_env("Pendulum-v1", config, 2, privileged=True)
    assert {key: value.shape for key, value in env.spec.obs.items()} == {
        "state": (2,),
        "privileged": (3,),
        "state.difference": (2,),
    }
    obs, result = env.reset(7), None
    assert not obs["state.difference"].any()
    for t in range(1, 5):
        before = env.current_obs["state"].copy()
        result = env.step(np.full((2, 1), 0.3, np.float32))
        change = result.next_obs["state.difference"]
        assert change.all() and change.dtype == np.float32
        np.testing.assert_array_equal(change, result.next_obs["state"] - before)
        if t == 3:  # a new episode has begun
            assert not result.obs["state.difference"].any()
        else:
            np.testing.assert_array_equal(result.obs["state.difference"], change)
    env.close()


def test_what_came_before_is_restored():
    env = open_env("Pendulum-v1", PREVIOUS, 2)
    env.reset(0)
    env.step(np.array([[0.5], [-0.25]]))
    state = env.state_dict()
    other = open_env("Pendulum-v1", PREVIOUS, 2)
    assert other.load_state_dict(state)
    for key, value in env.current_obs.items():
        np.testing.assert_array_equal(other.current_obs[key], value)
    action = np.array([[0.1], [0.2]])
    one, two = env.step(action), other.step(action)
    for key in one.next_obs:
        np.testing.assert_array_equal(one.next_obs[key], two.next_obs[key])


def test_arguments_reach_the_environment():
    env = open_env("slipstream/ProbeMemory-v0", EnvConfig(kwargs={"delay": 2}), 1)
    env.reset(0)
    lengths = [e.length for _ in range(6) for e in env.step(np.zeros((1, 1))).episodes]
    assert lengths == [3, 3]
    with pytest.raises(SlipstreamError, match="nonesuch"):
        open_env("Pendulum-v1", EnvConfig(kwargs={"nonesuch": 1}), 1)


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(SlipstreamError, match="7"):
        open_env("Pendulum-v1", EnvConfig(observe=ObservationConfig(mask="0,7")), 1)
