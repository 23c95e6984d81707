"""What is handed over at the switch, and what is not."""

import copy
from dataclasses import replace

import pytest
import torch

from slipstream.algorithms.sac import SACConfig
from slipstream.algorithms.td3 import TD3
from slipstream.networks.critic import CriticConfig
from slipstream.stages.accelerate import Brought
from slipstream.stages.learners import ALGORITHMS
from slipstream.stages.online import OnlineConfig
from tests.stages.teams import CONFIG, make_team


def flat(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def newest_obs(replay):
    """Every stored observation, oldest first (one environment)."""
    state = replay.state_dict()
    rows, head = state["rows"]["obs.state"][0], int(state["head"][0])
    assert head < len(rows)  # not yet around
    return rows


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_critics_the_temperature_and_the_newest_rows_are_carried(algorithm):
    team, _, stage = make_team(algorithm=algorithm)
    stage.learn(5)
    critic, target = flat(team.critic), flat(team.critic_target)
    assert not torch.equal(critic, target)
    alpha = getattr(stage.learner, "log_alpha", torch.zeros(1)).detach().clone()
    rows = newest_obs(team.replay)

    online = team.enter("online", stage)
    assert torch.equal(flat(team.critic), critic)
    assert torch.equal(flat(team.critic_target), target)
    assert online.learner.critic is team.critic  # pyright: ignore[reportAttributeAccessIssue]
    if algorithm == "sac":
        assert not torch.allclose(alpha, torch.zeros(1))  # it had moved
        torch.testing.assert_close(online.learner.log_alpha.detach(), alpha)  # pyright: ignore[reportAttributeAccessIssue]
    assert online.replay is team.replay and team.replay.capacity == 50
    assert torch.equal(newest_obs(team.replay), rows[-50:])
    assert online.collector is team.actors["transformer"]
    assert online.imitation is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_optimizers_and_targets_are_fresh(algorithm):
    team, _, stage = make_team(algorithm=algorithm)
    stage.learn(5)
    assert stage.imitation is not None
    stage.imitation.update()
    online = team.enter("online", stage)
    state = online.learner.state_dict()
    assert state["num_updates"] == 0
    for name in ("actor_optimizer", "critic_optimizer"):
        assert state[name]["num_steps"] == 0
        assert all(moment.abs().sum() == 0 for moment in state[name]["exp_avg"])
    if isinstance(online.learner, TD3):
        # A hard copy: a target that only drifts towards the clone is a random network for long.
        target = online.learner.actor_target
        assert isinstance(target, torch.nn.Module)
        assert torch.equal(flat(target), flat(team.actors["transformer"]))
        assert not any(parameter.requires_grad for parameter in target.own_parameters())
        online.learn(2)
        assert not torch.equal(flat(target), flat(team.actors["transformer"]))


def test_what_is_not_to_be_carried_is_fresh():
    online_config = OnlineConfig(
        replay_capacity=50, carry_rows=0, carry_critic=False, carry_alpha=False
    )
    team, _, stage = make_team(online=online_config)
    stage.learn(5)
    critic = flat(team.critic)
    online = team.enter("online", stage)
    assert not torch.equal(flat(team.critic), critic)
    assert torch.equal(flat(team.critic), flat(team.critic_target))
    assert online.learner.critic is team.critic  # pyright: ignore[reportAttributeAccessIssue]
    assert online.learner.log_alpha.item() == pytest.approx(0.0)  # pyright: ignore[reportAttributeAccessIssue]
    assert team.replay.num_transitions() == 0


def test_carry_rows_bounds_what_is_taken_along():
    team, _, stage = make_team(online=OnlineConfig(replay_capacity=50, carry_rows=9))
    rows = newest_obs(team.replay)
    team.enter("online", stage)
    assert torch.equal(newest_obs(team.replay), rows[-9:])


def test_stage_2_keeps_20_thousand_rows_by_default():
    team, _, stage = make_team(online=OnlineConfig())
    team.enter("online", stage)
    assert team.replay.capacity == 20_000


def test_interaction_goes_on_behind_the_carried_rows():
    team, interaction, stage = make_team()
    online = team.enter("online", stage)
    before = team.replay.num_transitions()
    interaction.replay = team.replay
    interaction.begin(online.collector)
    for _ in range(3):
        interaction.step(online.collector, online.learner.explore)
    assert team.replay.num_transitions() == before + 3
    assert online.ready
    online.learn(1)


def test_the_transformer_alone_has_no_accelerator():
    team, _, stage = make_team(kinds={"transformer": "transformer"})
    assert stage.name == "online" and stage.imitation is None
    assert team.product == "transformer" and list(team.actors) == ["transformer"]
    assert team.replay.capacity == 50
    stage.learn(1)


def test_the_accelerator_alone_has_no_clone():
    team, _, stage = make_team(kinds={"accelerator": "mlp"})
    assert team.product == "accelerator" and stage.imitation is None
    stage.learn(1)


def test_the_normalizer_is_one_for_all():
    team, _, stage = make_team(normalize_obs=True)
    assert team.normalizers["state"].count == 31  # the first one included
    stage.learn(2)
    online = team.enter("online", stage)
    for module in team.modules().values():
        shared = module.get_submodule("inputs.normalizers.state")
        assert shared is team.normalizers["state"]
    online.learn(1)


def test_a_snapshot_is_gone_back_to():
    team, _, stage = make_team()
    online = team.enter("online", stage)
    before = alpha_of(online)
    snapshot = team.snapshot(online)
    kept = copy.deepcopy(snapshot)
    online.learn(3)
    names, weights = ("transformer", "critic", "critic_target"), kept["networks"]
    assert all(not torch.equal(flat(team.modules()[n]), _flat_state(weights[n])) for n in names)
    assert alpha_of(online) != before
    again = team.restore(snapshot, online)
    assert all(torch.equal(flat(team.modules()[n]), _flat_state(weights[n])) for n in names)
    assert alpha_of(again) == pytest.approx(before)  # the fallen policy's is no use to it
    assert again.collector is online.collector and again.replay is online.replay
    assert again.learner.state_dict()["critic_optimizer"]["num_steps"] == 0
    again.learn(1)
    assert all(
        torch.equal(_flat_state(snapshot["networks"][n]), _flat_state(weights[n])) for n in names
    )
    assert snapshot["alpha"] == kept["alpha"]


@pytest.mark.parametrize(("tune", "expected"), [(True, 0.3), (False, 0.05)])
def test_a_brought_temperature_is_where_tuning_starts_and_else_of_no_account(tune, expected):
    sac = SACConfig(alpha=0.05, tune_alpha=tune)
    team, _, _ = make_team(algorithms=replace(CONFIG.algorithms, sac=sac))
    actor = team.actors["accelerator"]
    team.brought = Brought("a policy", actor, True, None, None, alpha=0.3, recipe={})
    stage = team.enter("accelerate")
    assert alpha_of(stage) == pytest.approx(expected)


def alpha_of(stage):
    return stage.learner.log_alpha.exp().item()


def _flat_state(state):
    return torch.cat([value.flatten() for value in state.values()])


def test_windows_are_as_long_as_the_longest_memory():
    memory = replace(CONFIG.networks, critic=CriticConfig(memory="transformer", hidden=(8,)))
    team, _, stage = make_team(networks=memory)
    assert stage.context_length == 3 == team.critic.context_length
    assert stage.collector.context_length == 1
    stage.learn(2)
    _, _, plain = make_team()
    assert plain.context_length == 1


def test_ready_once_a_batch_can_be_drawn():
    _, _, stage = make_team(batch_size=30)
    assert stage.ready
    _, _, stage = make_team(batch_size=31)
    assert not stage.ready


def test_a_full_replay_is_ready_although_ends_of_episodes_fill_it():
    full = replace(CONFIG.accelerate, replay_capacity=20)
    team, _, stage = make_team(batch_size=19, accelerate=full)
    assert team.replay.num_transitions() < 19
    assert stage.ready


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_team_goes_on_after_saving_as_if_never_saved(algorithm):
    fields = {"algorithm": algorithm, "normalize_obs": True}
    team, _, stage = make_team(**fields)
    stage.learn(3)
    saved = copy.deepcopy((team.state_dict(), stage.state_dict(), torch.get_rng_state()))
    other, _, other_stage = make_team(seed=5, **fields)
    other.load_state_dict(copy.deepcopy(saved[0]))
    other_stage.load_state_dict(copy.deepcopy(saved[1]))
    for each in (stage, other_stage):
        torch.set_rng_state(saved[2])
        each.learn(3)
        assert each.imitation is not None
        each.imitation.update()
    for name, module in team.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, other.modules()[name].state_dict()[key]), (name, key)
