"""Images in a run: encoded once a frame, then replaced by embeddings of a frozen encoder."""

from dataclasses import replace

import pytest
import torch

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


@pytest.mark.parametrize(("privileged", "freeze"), [((), True), (("accelerator", "critic"), False)])
def test_images_stay_where_an_encoder_still_learns(privileged, freeze):
    online = replace(CONFIG.online, freeze_encoder=freeze)
    team, _, stage, _ = make_team(privileged=privileged, online=online)
    before = {
        k: v.clone() for k, v in team.actors["transformer"].inputs.encoders.state_dict().items()
    }
    second = team.enter("online", stage)
    assert team.embedder is None and "rgb" in second.replay.spec.obs
    assert second.loss_steps == 4
    second.learn(2)
    after = team.actors["transformer"].inputs.encoders.state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())
