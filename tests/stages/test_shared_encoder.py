"""One encoder for policy and critics: who moves it, who sees what, and what is kept of it."""

import copy
from dataclasses import replace

import pytest
import torch

from slipstream.networks.inputs import TARGET, embedding_key
from slipstream.stages.learners import ALGORITHMS
from slipstream.stages.shared_encoder import SharedEncoder
from slipstream.stages.shift import shifted
from tests.stages.pictures import CNN, make_team
from tests.stages.teams import CONFIG

KINDS = ("mlp", "lstm", "transformer")


def weights(module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def encoder_of(module) -> dict[str, torch.Tensor]:
    return weights(module.inputs.encoders)


def equal(one, other) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items())


def batch_of(stage, seed=0):
    """What the learner is handed."""
    handed = []
    update = stage.learner.update
    stage.learner.update = lambda batch: handed.append(batch) or {}
    torch.manual_seed(seed)
    stage.learn(1)
    stage.learner.update = update
    return handed[0]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_critics_loss_alone_moves_the_encoder(algorithm, kind):
    team, _, stage, _ = make_team((), kind, algorithm=algorithm)
    actor, critic = team.actors["accelerator"], team.critic
    assert actor.inputs.encoders is critic.inputs.encoders
    shared = {id(p) for p in critic.inputs.encoders.parameters()}
    learner = stage.learner
    moved_by_actor = {id(p) for p in learner.actor_optimizer.parameters}  # pyright: ignore
    moved_by_critic = [id(p) for p in learner.critic_optimizer.parameters]  # pyright: ignore
    assert not shared & moved_by_actor and shared <= set(moved_by_critic)
    assert len(set(moved_by_critic)) == len(moved_by_critic)
    own = {id(p) for p in (*actor.backbone.parameters(), *actor.head.parameters())}  # pyright: ignore
    assert moved_by_actor == own

    # No gradient of the policy's loss arrives there, with embeddings handed in or images.
    batch = batch_of(stage)
    raw = stage.replay.sample(4, stage.context_length, stage.loss_steps)
    for each in (batch, raw):
        output = actor(each.obs, each.obs_valid, each.loss_steps).mode.sum()
        found = torch.autograd.grad(output, list(actor.parameters()), allow_unused=True)
        for parameter, grad in zip(actor.parameters(), found, strict=True):
            assert (grad is None) == (id(parameter) in shared)
    q = critic(batch.obs, batch.obs_valid, batch.action[:, -batch.loss_steps :])
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(q.sum(), list(critic.parameters())))

    # With the critics' learning rate at zero an update moves the policy but not what it sees.
    settings = replace(getattr(team.config.algorithms, algorithm), critic_lr=0.0)
    team.config = replace(
        team.config, algorithms=replace(team.config.algorithms, **{algorithm: settings})
    )
    still = team.restore(team.snapshot(stage), stage)
    before, head = encoder_of(critic), weights(actor.head)
    still.learn(2)
    assert equal(before, encoder_of(critic)) and not equal(head, weights(actor.head))
    stage.learn(2)
    assert not equal(before, encoder_of(critic))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_targets_encoder_is_moved_once_by_tau(algorithm):
    team, _, stage, _ = make_team((), algorithm=algorithm)
    learner = stage.learner
    tau = learner.config.tau  # pyright: ignore
    stage.learn(2)
    before = encoder_of(team.critic_target)
    if algorithm == "td3":
        assert learner.actor_target.inputs.encoders is team.critic_target.inputs.encoders  # pyright: ignore
        before_odd = before
        stage.learn(1)  # no policy update, and none of the targets
        assert equal(before_odd, encoder_of(team.critic_target))
    stage.learn(1)
    expected = {
        key: torch.lerp(value, team.critic.inputs.encoders.state_dict()[key], tau)
        for key, value in before.items()
    }
    for key, value in encoder_of(team.critic_target).items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=1e-7)
        assert not torch.equal(value, before[key])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_update_on_embeddings_is_the_update_on_images(algorithm):
    """Encoding ahead changes nothing but when the policy meets the critics' step."""
    teams = [make_team((), algorithm=algorithm) for _ in range(2)]
    results = []
    for i, (team, _, stage, _) in enumerate(teams):
        torch.manual_seed(1)
        batch = stage.replay.sample(4, stage.context_length, stage.loss_steps)
        if i:
            batch = SharedEncoder(team.critic, team.critic_target)(batch)
        torch.manual_seed(2)
        results.append((stage.learner.update(batch), weights(team.critic)))
    (raw, raw_critic), (ahead, ahead_critic) = results
    for name in ("critic_loss", "q", "target_q"):
        torch.testing.assert_close(raw[name], ahead[name])
    for key, value in raw_critic.items():
        # Adam's first step is the sign of the gradient: where that is nearly 0, rounding decides.
        assert (value - ahead_critic[key]).abs().median() < 1e-6, key


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_frame_is_encoded_once_by_the_encoder_and_once_by_its_copy(algorithm):
    team, _, stage, _ = make_team((), algorithm=algorithm)
    counts = {"own": 0, "target": 0}

    def count(name):
        def hook(_module, args, _output):
            counts[name] += args[0].shape[:-3].numel()

        return hook

    team.critic.inputs.encoders["rgb"].register_forward_hook(count("own"))
    team.critic_target.inputs.encoders["rgb"].register_forward_hook(count("target"))
    batch = batch_of(stage)
    assert "rgb" not in batch.window
    counts.update(own=0, target=0)
    stage.learn(2)
    windows, length = batch.action.shape[:2]
    assert counts == {"own": 2 * windows * (length + 1), "target": 2 * windows * length}


def test_targets_see_their_own_embeddings_of_the_same_shifted_images():
    team, _, stage, _ = make_team(())
    with torch.no_grad():
        for parameter in team.critic_target.inputs.encoders.parameters():
            parameter.add_(0.1)
    torch.manual_seed(4)
    windows = -(-stage.batch_size // stage.loss_steps)
    images = shifted(stage.replay.sample(windows, stage.context_length, stage.loss_steps), 1)
    batch = batch_of(stage, seed=4)
    assert stage.shift == 1
    for critic, of in ((team.critic, "embedding"), (team.critic_target, TARGET)):
        expected = critic.inputs.encoders["rgb"](images.next_obs["rgb"])
        found = batch.next_obs[embedding_key("rgb", of)]
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(critic.inputs.frames(batch.next_obs), expected)
    assert batch.window[embedding_key("rgb", TARGET)][:, 0].isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_acting_equals_training_through_a_borrowed_encoder(kind):
    networks = replace(CONFIG.networks, cnn=CNN, mlp=replace(CONFIG.networks.mlp, frame_stack=3))
    team, _, stage, _ = make_team((), kind, networks=networks)
    stage.learn(3)
    actor = team.actors["accelerator"]
    images = torch.randint(0, 256, (2, 7, 12, 12, 3), dtype=torch.uint8)
    embedded = team.critic.inputs.encoders["rgb"](images)
    valid = torch.ones(2, 7, dtype=torch.bool)
    whole = actor({"rgb": images}, valid, 7).mode
    ahead = actor({"rgb.embedding": embedded}, valid, 7).mode
    carry = actor.initial_carry(2)
    for t in range(7):
        output, carry = actor.step({"rgb": images[:, t]}, carry)
        torch.testing.assert_close(output.mode, whole[:, t], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.mode, ahead[:, t], rtol=1e-4, atol=1e-5)


def test_the_accelerator_stays_as_it_was_when_the_critics_go_on_without_it():
    team, _, stage, _ = make_team(())
    stage.learn(2)
    accelerator = team.actors["accelerator"]
    before = weights(accelerator)
    online = team.enter("online", stage)
    online.learn(3)
    assert not equal(encoder_of(team.critic), encoder_of(accelerator))
    assert equal(before, weights(accelerator))
    assert accelerator.own_parameters() == list(accelerator.parameters())


def test_a_transformer_from_scratch_borrows():
    team, _, stage, _ = make_team((), kinds={"transformer": "transformer"})
    assert team.actors["transformer"].inputs.borrowed and stage.shared_encoder is not None
    snapshot = team.snapshot(stage)
    before = copy.deepcopy(snapshot["networks"])
    stage.learn(3)
    assert not equal(before["transformer"], weights(team.actors["transformer"]))
    again = team.restore(snapshot, stage)
    assert equal(before["transformer"], weights(team.actors["transformer"]))
    assert equal(before["critic"], weights(team.critic))
    again.learn(2)
    assert team.actors["transformer"].inputs.encoders is team.critic.inputs.encoders


def count_frames(**networks) -> dict[str, int]:
    """How many images each network encodes from now on."""
    counts = dict.fromkeys(networks, 0)
    for name, network in networks.items():

        def hook(_module, args, _output, name=name):
            counts[name] += args[0].shape[:-3].numel()

        network.inputs.encoders["rgb"].register_forward_hook(hook)
    return counts


@pytest.mark.parametrize("carry_critic", [True, False])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_clone_reads_by_the_critics_encoder_in_both_stages(algorithm, carry_critic):
    online = replace(CONFIG.online, carry_critic=carry_critic)
    team, _, stage, _ = make_team((), algorithm=algorithm, online=online)
    transformer = team.actors["transformer"]
    assert transformer.inputs.encoders is team.critic.inputs.encoders
    assert stage.imitation is not None
    stage.learn(2)

    # Cloning moves what is the clone's own, and encodes each frame once for teacher and clone.
    before, own = encoder_of(team.critic), weights(transformer.backbone)
    counts = count_frames(critic=team.critic)
    stage.imitation.update()
    assert equal(before, encoder_of(team.critic)) and not equal(own, weights(transformer.backbone))
    windows = -(-16 // stage.imitation.loss_steps)
    assert counts == {"critic": windows * stage.imitation.context_length}

    # At the switch it acts as before, whatever becomes of the critics.
    images = torch.randint(0, 256, (2, 1, 12, 12, 3), dtype=torch.uint8)
    seen = ({"rgb": images}, torch.ones(2, 1, dtype=torch.bool))
    acted = transformer(*seen).mode
    second = team.enter("online", stage)
    assert torch.equal(transformer(*seen).mode, acted)
    assert transformer.inputs.encoders is team.critic.inputs.encoders
    assert second.shared_encoder is not None and team.embedder is None

    # From then on as with the accelerator: each frame once, moved by the critics alone.
    counts = count_frames(critic=team.critic, target=team.critic_target)
    batch = batch_of(second)
    assert "rgb" not in batch.window
    num_windows, length = batch.action.shape[:2]
    assert counts == {"critic": num_windows * (length + 1), "target": num_windows * length}
    shared = {id(parameter) for parameter in team.critic.inputs.encoders.parameters()}
    assert not shared & {id(p) for p in second.learner.actor_optimizer.parameters}  # pyright: ignore
    snapshot = copy.deepcopy(team.snapshot(second))
    kept = snapshot["networks"]
    second.learn(3)
    assert not equal(kept["transformer"], weights(transformer))
    team.restore(snapshot, second)
    assert equal(kept["transformer"], weights(transformer))
    assert equal(kept["critic"], weights(team.critic))


@pytest.mark.parametrize("privileged", [("critic",), ("accelerator",)])
def test_nothing_is_shared_where_one_of_them_sees_no_image(privileged):
    team, _, stage, _ = make_team(privileged)
    assert not any(actor.inputs.borrowed for actor in team.actors.values())
    # The critics' frames are encoded once for all that they are needed for, none for others.
    assert (stage.shared_encoder is not None) == (privileged == ("accelerator",))
    stage.learn(2)


def test_it_can_be_switched_off():
    networks = replace(CONFIG.networks, cnn=CNN, share_encoder=False)
    team, _, stage, _ = make_team((), networks=networks)
    actor = team.actors["accelerator"]
    assert not actor.inputs.borrowed and stage.shared_encoder is None
    before = encoder_of(actor)
    stage.learn(2)
    assert not equal(before, encoder_of(actor))
