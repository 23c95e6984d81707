"""Images in a run: encoded once a frame, then replaced by embeddings of a frozen encoder."""

from dataclasses import replace

import pytest
import torch

from slipstream.errors import SlipstreamError
from slipstream.stages.interact import Interaction
from slipstream.stages.learners import ALGORITHMS
from tests.stages.pictures import make_team
from tests.stages.teams import CONFIG


def test_cloning_draws_several_steps_of_a_window_and_only_what_it_reads():
    _, _, stage, _ = make_team()
    assert stage.imitation is not None
    drawn = []
    sample = stage.imitation.replay.sample

    def spy(*args, **kwargs):
        drawn.append((args, sample(*args, **kwargs)))
        return drawn[-1][1]

    stage.imitation.replay.sample = spy
    stage.imitation.update()
    ((windows, context, loss_steps), batch) = drawn[0]
    assert (windows, context, loss_steps) == (4, 3 + 4 - 1, 4)  # 16 steps, three frames before each
    assert set(batch.window) == {"rgb", "privileged"}
    drawn.clear()
    stage.replay.sample = spy
    stage.learn(1)
    assert set(drawn[0][1].window) == {"privileged"}  # accelerator and critic look at no image
    assert drawn[0][1].loss_steps == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_stage_2_keeps_embeddings_in_place_of_images(algorithm):
    team, _, stage, env = make_team(algorithm=algorithm)
    transformer = team.actors["transformer"]
    images = team.replay.sample(64, 1, generator=torch.Generator().manual_seed(0))
    bytes_before = team.replay.num_bytes // team.replay.capacity

    online = team.enter("online", stage)
    assert team.embedder is not None
    assert set(online.replay.spec.obs) == {"rgb.embedding", "privileged"}
    assert online.replay.num_bytes // online.replay.capacity < bytes_before / 5
    # Row for row what the encoder makes of the images.
    batch = online.replay.sample(200, 1)
    known = {tuple(row.tolist()): i for i, row in enumerate(images.window["privileged"][:, 0])}
    compared = 0
    for state, embedding in zip(
        batch.window["privileged"][:, 0], batch.window["rgb.embedding"][:, 0], strict=True
    ):
        i = known.get(tuple(state.tolist()))
        if i is not None:
            with torch.no_grad():
                expected = transformer.inputs.encoders["rgb"](images.window["rgb"][i, 0])
            torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-5)
            compared += 1
    assert compared > 5

    # The run goes on: images are embedded before anybody sees them, and the encoder stands still.
    before = {k: v.clone() for k, v in transformer.inputs.encoders.state_dict().items()}
    head = {k: v.clone() for k, v in transformer.head.state_dict().items()}
    interaction = Interaction(env, team.replay, team.normalizers, team.embedder.obs)
    interaction.begin(online.collector)
    for _ in range(20):
        interaction.step(online.collector, online.learner.explore)
    online.learn(4)
    for key, value in transformer.inputs.encoders.state_dict().items():
        assert torch.equal(value, before[key])
    assert any(not torch.equal(v, head[k]) for k, v in transformer.head.state_dict().items())
    acted = transformer.step(
        {k: torch.as_tensor(v) for k, v in env.current_obs.items()}, transformer.initial_carry(2)
    )[0]
    embedded = {k: torch.as_tensor(v) for k, v in team.embedder.obs(env.current_obs).items()}
    torch.testing.assert_close(
        transformer.step(embedded, transformer.initial_carry(2))[0].mode, acted.mode
    )


def encoder_of(network) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in network.inputs.encoders.state_dict().items()}


@pytest.mark.parametrize(
    ("privileged", "freeze"), [((), None), ((), False), (("accelerator", "critic"), False)]
)
def test_images_stay_where_an_encoder_still_learns(privileged, freeze):
    online = replace(CONFIG.online, freeze_encoder=freeze)
    team, _, stage, _ = make_team(privileged=privileged, online=online)
    before = encoder_of(team.actors["transformer"])
    second = team.enter("online", stage)
    assert team.embedder is None and "rgb" in second.replay.spec.obs
    assert second.loss_steps == 4
    second.learn(2)
    after = team.actors["transformer"].inputs.encoders.state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_shared_encoder_can_be_frozen_for_all_who_read_by_it(algorithm):
    online = replace(CONFIG.online, freeze_encoder=True)
    team, _, stage, env = make_team((), algorithm=algorithm, online=online)
    stage.learn(3)
    before = encoder_of(team.critic)
    second = team.enter("online", stage)
    assert set(second.replay.spec.obs) == {"rgb.embedding", "privileged"}
    assert second.keys == {"rgb.embedding"} and second.loss_steps == 1
    assert team.embedder is not None and second.shared_encoder is None
    interaction = Interaction(env, team.replay, team.normalizers, team.embedder.obs)
    interaction.begin(second.collector)
    for _ in range(20):
        interaction.step(second.collector, second.learner.explore)
    snapshot, values = team.snapshot(second), team.critic.ensemble.state_dict()
    values = {k: v.clone() for k, v in values.items()}
    second.learn(4)
    second = team.restore(snapshot, second)
    second.learn(4)
    assert any(not torch.equal(v, values[k]) for k, v in team.critic.ensemble.state_dict().items())
    for network in (team.actors["transformer"], team.critic, team.critic_target):
        for key, value in encoder_of(network).items():
            assert torch.equal(value, before[key])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("freeze", [None, False])
def test_beside_critics_with_eyes_of_their_own_the_clones_are_frozen(algorithm, freeze):
    """What a teacher that sees the state does need not follow from what the critics look at."""
    online = replace(CONFIG.online, freeze_encoder=freeze)
    team, _, stage, env = make_team(("accelerator",), algorithm=algorithm, online=online)
    transformer = team.actors["transformer"]
    assert not transformer.inputs.borrowed and stage.shared_encoder is not None
    stage.learn(2)
    own, critics = encoder_of(transformer), encoder_of(team.critic)
    second = team.enter("online", stage)
    frozen = freeze is None
    assert ("rgb.frozen_embedding" in second.replay.spec.obs) == frozen
    assert (second.shared_encoder is not None) == frozen
    if team.embedder is not None:
        interaction = Interaction(env, team.replay, team.normalizers, team.embedder.obs)
        interaction.begin(second.collector)
        for _ in range(20):
            interaction.step(second.collector, second.learner.explore)
        assert second.keys == {"rgb", "rgb.frozen_embedding"}
    second.learn(4)
    moved = encoder_of(transformer)
    assert all(torch.equal(moved[key], own[key]) for key in own) == frozen
    now = encoder_of(team.critic)
    assert any(not torch.equal(now[key], critics[key]) for key in critics)


def test_an_encoder_that_nobody_has_made_is_not_frozen():
    online = replace(CONFIG.online, freeze_encoder=True)
    with pytest.raises(SlipstreamError, match=r"starts from scratch.*would stay random"):
        make_team((), kinds={"transformer": "transformer"}, online=online)
