"""One memory for policy and critics: who moves it, and what becomes of it at the switch."""

from dataclasses import replace
from typing import Literal

import pytest
import torch

from slipstream.config import RunConfig
from slipstream.errors import SlipstreamError
from slipstream.networks import NetworksConfig
from slipstream.networks.critic import CriticConfig
from slipstream.stages.learners import ALGORITHMS
from tests.stages.teams import CONFIG, make_team

Kind = Literal["lstm", "gru", "transformer"]
KINDS: tuple[Kind, ...] = ("lstm", "gru", "transformer")


def shared(kind: Kind, algorithm: str = "sac", **fields):
    critic = CriticConfig(memory=kind, hidden=(16,))
    networks = replace(CONFIG.networks, critic=critic, share_memory=True)
    kinds = {"accelerator": kind, "transformer": "transformer"}
    return make_team(kinds=kinds, networks=networks, algorithm=algorithm, **fields)


def weights(module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def equal(one, other) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_critics_loss_alone_moves_the_memory(kind, algorithm):
    team, _, stage = shared(kind, algorithm)
    actor, critic = team.actors["accelerator"], team.critic
    assert actor.backbone is critic.memory
    memory = {id(p) for p in critic.memory.parameters()}
    moved = {id(p) for p in stage.learner.actor_optimizer.parameters}  # pyright: ignore
    assert moved == {id(p) for p in actor.head.parameters()}
    assert memory <= {id(p) for p in stage.learner.critic_optimizer.parameters}  # pyright: ignore

    batch = stage.replay.sample(4, stage.context_length, stage.loss_steps)
    output = actor(batch.obs, batch.obs_valid, batch.loss_steps).mode
    found = torch.autograd.grad(output.sum(), list(actor.parameters()), allow_unused=True)
    for parameter, grad in zip(actor.parameters(), found, strict=True):
        assert (grad is None) == (id(parameter) in memory)

    before, head = weights(critic.memory), weights(actor.head)
    stage.learn(2)
    assert not equal(before, weights(critic.memory)) and not equal(head, weights(actor.head))
    target = team.critic_target
    if algorithm == "td3":
        assert stage.learner.actor_target.backbone is target.memory  # pyright: ignore


@pytest.mark.parametrize("kind", KINDS)
def test_acting_equals_training_with_a_shared_memory(kind):
    team, _, stage = shared(kind)
    stage.learn(3)
    actor = team.actors["accelerator"]
    obs = torch.randn(6, 1, team.spec.obs["state"].size)
    carry = actor.initial_carry(1)
    for step in range(6):
        output, carry = actor.step({"state": obs[step]}, carry)
        window = obs[: step + 1].transpose(0, 1)[:, -actor.context_length :]
        valid = torch.ones(window.shape[:2], dtype=torch.bool)
        trained = actor({"state": window}, valid).mode[:, -1]
        torch.testing.assert_close(output.mode, trained, rtol=1e-4, atol=1e-5)


def test_after_the_switch_the_accelerator_stays_as_it_was():
    team, _, stage = shared("gru", "td3")
    stage.learn(2)
    actor = team.actors["accelerator"]
    online = team.enter("online", stage)
    assert actor.backbone is not team.critic.memory
    before = weights(actor)
    online.learn(2)
    assert equal(before, weights(actor))


def test_kinds_that_differ_are_refused():
    with pytest.raises(SlipstreamError, match=r"'mlp' and networks\.critic\.memory is 'lstm'"):
        RunConfig(
            "Pendulum-v1",
            networks=NetworksConfig(critic=CriticConfig(memory="lstm"), share_memory=True),
        )


def test_eyes_that_differ_are_refused():
    with pytest.raises(SlipstreamError, match="see different observations"):
        RunConfig(
            "Pendulum-v1",
            accelerator="lstm",
            privileged=("critic",),
            networks=NetworksConfig(critic=CriticConfig(memory="lstm"), share_memory=True),
        )
