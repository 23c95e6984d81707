"""Rows that say where they come from reach the replay as the environments gave them."""

import copy

import numpy as np
import pytest
import torch

from slipstream.envs.making import make_env
from slipstream.envs.probe import identity_envs, identity_reward
from slipstream.networks import Normalizer
from slipstream.replay import ReplayBuffer
from slipstream.stages.interact import Interaction, random_action, rollout
from tests.networks.policies import actor_of, critic_config

LENGTHS = ((3, 5, 1), (4,), (1, 2, 7))


def make_interaction(kind="transformer", normalizer=None, endings=("terminated", "truncated")):
    env = make_env(identity_envs(LENGTHS, endings))
    torch.manual_seed(0)
    normalizers = {} if normalizer is None else {"state": normalizer}
    actor = actor_of(kind, critic_config(), spec=env.spec, normalizers=normalizers)
    replay = ReplayBuffer(env.spec, 300, env.num_envs)
    interaction = Interaction(env, replay, normalizers)
    interaction.begin(actor, seed=0)
    return interaction, actor


@pytest.mark.parametrize("random", [False, True])
def test_the_replay_holds_what_the_environments_emitted(random):
    interaction, actor = make_interaction()
    followers: dict[tuple[float, ...], np.ndarray] = {}

    def explore(output):
        return (output.mode + 0.01).clamp(-1, 1)

    num_episodes = 0
    for _ in range(40):
        obs = interaction.env.current_obs["state"].copy()
        result = interaction.step(actor, explore, random)
        num_episodes += len(result.episodes)
        for i in range(3):
            followers[tuple(obs[i])] = result.next_obs["state"][i]
    assert interaction.replay.num_transitions() == 120 and num_episodes > 20

    batch = interaction.replay.sample(500, 4)
    seen = set()
    for b in range(500):
        steps = batch.window["state"][b][batch.valid[b]]
        env_id, episode, t = (int(value) for value in steps[-1])
        # One environment, one episode, consecutive steps from its start or the context's reach.
        expected = [[env_id, episode, step] for step in range(max(t - 4, 0), t + 1)]
        assert steps.tolist() == expected
        rewards = batch.reward[b][batch.valid[b, :-1]].tolist()
        assert rewards == [
            identity_reward(env_id, episode, step) for step in range(max(t - 4, 0) + 1, t + 1)
        ]
        length = LENGTHS[env_id][episode % len(LENGTHS[env_id])]
        ended = t == length and episode % 2 == 0  # endings: terminated, truncated, ...
        assert batch.terminated[b, -1] == float(ended)
        assert followers[tuple(steps[-2].tolist())].tolist() == steps[-1].tolist()
        seen.add((env_id, episode, t))
    assert len(seen) > 100


def test_actions_taken_are_actions_stored(monkeypatch):
    interaction, actor = make_interaction()
    taken = []
    step = interaction.env.step
    monkeypatch.setattr(
        interaction.env,
        "step",
        lambda action: (taken.append(action.numpy().copy()), step(action))[1],
    )
    for i in range(10):
        interaction.step(actor, lambda output: output.mode, random=i < 5)
    batch = interaction.replay.sample(300, 1)
    known = {action.tobytes() for actions in taken for action in actions}
    assert all(action.numpy().tobytes() in known for action in batch.action[:, 0])
    assert len({action.numpy().tobytes() for action in batch.action[:, 0]}) == 30


def test_carries_are_reset_at_an_episodes_start():
    interaction, actor = make_interaction()
    for _ in range(25):
        interaction.step(actor, lambda output: output.mode)
        for i in range(3):
            t = int(interaction.env.current_obs["state"][i, 2])
            # What came before in this episode, and nothing else.
            assert int(interaction.carry["valid"][i].sum()) == min(t, actor.context_length)


def test_random_steps_move_the_memory_along():
    """A policy that takes over mid-episode knows the frames that random actions led to."""
    interaction, actor = make_interaction()
    for _ in range(3):
        interaction.step(actor, lambda output: output.mode, random=True)
    window = interaction.carry["window"][1, interaction.carry["valid"][1]]
    assert window.tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 2]]


def test_the_normalizer_sees_each_observation_acted_on_once():
    normalizer = Normalizer(3)
    interaction, actor = make_interaction(normalizer=normalizer)
    rows = [interaction.env.current_obs["state"].copy()]
    for _ in range(12):
        interaction.step(actor, lambda output: output.mode)
        rows.append(interaction.env.current_obs["state"].copy())
    data = np.concatenate(rows)
    assert normalizer.count == len(data)
    np.testing.assert_allclose(normalizer.mean, data.mean(0), rtol=1e-5)
    np.testing.assert_allclose(normalizer.var, data.var(0), rtol=1e-4)


def test_beginning_anew_cuts_the_running_episodes():
    interaction, actor = make_interaction()
    for _ in range(2):
        interaction.step(actor, lambda output: output.mode)
    interaction.begin(actor)
    assert int(interaction.carry["valid"].sum()) == 0
    interaction.step(actor, lambda output: output.mode)
    batch = interaction.replay.sample(200, 3)
    assert set(batch.terminated[:, -1].tolist()) <= {0.0, 1.0}
    for b in range(200):  # no window across the cut
        assert len(set(batch.window["state"][b][batch.valid[b]][:, 1].tolist())) == 1


def test_random_actions_fill_the_box():
    torch.manual_seed(0)
    action = random_action(5000, 2)
    assert action.shape == (5000, 2) and action.min() >= -1 and action.max() < 1
    assert action.mean().abs() < 0.05 and action.min() < -0.99 and action.max() > 0.99


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "slipstream/ProbeMemory-v0"])
def test_goes_on_after_saving_as_if_never_saved(env_id):
    def make():
        env = make_env(env_id, num_envs=2)
        torch.manual_seed(0)
        actor = actor_of("transformer", critic_config(), spec=env.spec)
        interaction = Interaction(env, ReplayBuffer(env.spec, 100, 2), {})
        interaction.begin(actor, seed=3)
        return interaction, actor

    whole, actor = make()
    for _ in range(9):
        whole.step(actor, lambda output: output.mode)
    saved = copy.deepcopy((whole.replay.state_dict(), whole.state_dict()))
    resumed, _ = make()
    resumed.replay.load_state_dict(saved[0])
    assert resumed.load_state_dict(saved[1], actor)
    for _ in range(9):
        one = whole.step(actor, lambda output: output.mode)
        two = resumed.step(actor, lambda output: output.mode)
        np.testing.assert_array_equal(one.obs["state"], two.obs["state"])
    for key, value in whole.carry.items():
        assert torch.equal(value, resumed.carry[key])
    rows, others = (each.replay.state_dict()["rows"] for each in (whole, resumed))
    assert all(torch.equal(rows[key], others[key]) for key in rows)


def test_an_environment_that_cannot_be_restored_begins_anew():
    interaction, actor = make_interaction()
    for _ in range(4):
        interaction.step(actor, lambda output: output.mode)
    saved = copy.deepcopy((interaction.replay.state_dict(), interaction.state_dict()))
    saved[1]["env"]["sub_envs"] = None  # as of a vector environment that was handed over
    fresh, _ = make_interaction()
    fresh.replay.load_state_dict(saved[0])
    assert not fresh.load_state_dict(saved[1], actor)
    assert int(fresh.carry["valid"].sum()) == 0
    before = fresh.replay.num_transitions()
    fresh.step(actor, lambda output: output.mode)
    assert fresh.replay.num_transitions() == before + 3


def test_rollout_runs_whole_episodes_and_counts_their_steps():
    env = make_env(identity_envs([(3, 5, 1)]))
    actor = actor_of("mlp", critic_config(), spec=env.spec)
    replay = ReplayBuffer(env.spec, 100)
    num_steps, returns = rollout(env, actor, replay, 3, seed=0)
    assert num_steps == 9 == replay.num_transitions()
    assert returns == [
        sum(identity_reward(0, episode, t + 1) for t in range(length))
        for episode, length in enumerate((3, 5, 1))
    ]


def test_a_rollout_without_end_is_cut_off_and_told_of(monkeypatch):
    monkeypatch.setattr("slipstream.stages.interact.MAX_STEPS", 6)
    env = make_env(identity_envs([(3, 5, 50)], ("truncated",)))
    actor = actor_of("mlp", critic_config(), spec=env.spec)
    replay = ReplayBuffer(env.spec, 100)
    with pytest.warns(UserWarning, match=r"within 6 steps and was cut off.*max-episode-steps"):
        num_steps, returns = rollout(env, actor, replay, 9, seed=0)
    assert (num_steps, len(returns)) == (3 + 5 + 6, 2)
    behind, _ = rollout(env, actor, replay, 1, seed=0)
    assert replay.num_transitions() == num_steps + behind  # what was cut off is truncated
    assert not replay.sample(200).terminated.any()
