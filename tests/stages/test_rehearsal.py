"""What an accelerator is made of before the first step."""

from dataclasses import replace

import torch

from slipstream.networks import Actor
from slipstream.stages.imitation import CloningConfig
from slipstream.stages.rehearsal import DataConfig, Rehearsal
from tests.stages.pictures import CNN, make_team
from tests.stages.teams import CONFIG


def rehearse(actor: Actor, replay, monkeypatch) -> list[int]:
    """Clone a frozen policy from a replay; the loss steps of each window that was drawn."""
    actor.requires_grad_(False)
    config = DataConfig(clone_updates=3, critic_updates=0, top=1.0)
    cloning = CloningConfig(batch_size=16)
    rehearsal = Rehearsal(config, cloning, actor, replay, lambda _: {}, CNN.segment)
    sizes = []
    update = rehearsal.cloning.update

    def spy(batch, label):
        sizes.append(batch.loss_steps)
        assert batch.action.shape[0] * batch.loss_steps == 16
        return update(batch, label)

    monkeypatch.setattr(rehearsal.cloning, "update", spy)
    rehearsal.run(lambda: False)
    return sizes


def test_images_of_data_are_learnt_from_in_segments(monkeypatch):
    networks = replace(CONFIG.networks, cnn=CNN, share_encoder=False)
    team, _, _, _ = make_team((), networks=networks)
    actor = team.actors["accelerator"]
    before = torch.cat([p.flatten() for p in actor.inputs.encoders.parameters()])
    assert rehearse(actor, team.replay, monkeypatch) == [CNN.segment] * 3
    after = torch.cat([p.flatten() for p in actor.inputs.encoders.parameters()])
    assert not torch.equal(before, after)


def test_vectors_of_data_are_learnt_from_one_by_one(monkeypatch):
    team, _, _, _ = make_team()
    assert rehearse(team.actors["accelerator"], team.replay, monkeypatch) == [1] * 3
