"""Runs that learn from images: what is kept of them, and that they learn."""

from dataclasses import replace

import pytest
import torch

from slipstream.accelerators import bring
from slipstream.algorithms.sac import SACConfig
from slipstream.algorithms.td3 import TD3Config
from slipstream.checkpoint import resolve
from slipstream.checkpoint.tree import load_tree
from slipstream.config import EvalConfig, team_config
from slipstream.envs.probe import ProbeImage
from slipstream.envs.setup import open_env
from slipstream.errors import SlipstreamError
from slipstream.policies.policy import load_policy
from slipstream.presets import preset
from slipstream.stages.learners import ALGORITHMS, AlgorithmsConfig
from slipstream.stages.team import Team
from slipstream.training import train
from tests.stages.pictures import CNN, make_team
from tests.stages.teams import CONFIG
from tests.tiny_runs import lines, tiny

PICTURE = "tests.stages.pictures:picture"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """An accelerator alone that learns from images."""
    config = tiny(
        env_id=PICTURE,
        networks=replace(tiny().networks, cnn=CNN),
        stages=("accelerate",),
        cloning=replace(tiny().cloning, enabled=False),
        total_steps=80,
    )
    return config, train(config, tmp_path_factory.mktemp("alone") / "run", show_progress=False)


def test_a_saved_accelerator_has_the_encoder_that_it_borrowed(alone):
    _, run_dir = alone
    state = load_tree(resolve(run_dir) / "training_state")["team"]["networks"]
    policy = load_policy(run_dir)
    assert not policy.actor.inputs.borrowed
    for name, value in policy.actor.inputs.encoders.state_dict().items():
        assert torch.equal(value, state["critic"][f"inputs.encoders.{name}"])
    assert policy.actor.context_length == 3  # one image tells no velocity
    env = policy.open_env(2)
    obs = env.reset(0)
    action, _ = policy.step(obs, policy.initial_carry(2))
    assert action.shape == (2, 1)
    env.close()


def test_one_that_is_brought_along_goes_on_sharing(alone):
    config, run_dir = alone
    config = replace(
        config,
        accelerator=f"slipstream:{run_dir}",
        accelerate=replace(config.accelerate, learn=True),
        cloning=replace(config.cloning, enabled=True),
        stages=("accelerate", "online"),
    )
    env = open_env(PICTURE, config.env, 1)
    brought = bring(config, env.spec)
    assert brought is not None and brought.critic is not None and brought.learns
    assert brought.actor.inputs.encoders is brought.critic.inputs.encoders
    saved = load_policy(run_dir).actor.state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in brought.actor.state_dict().items())
    team = Team(team_config(config), env.spec, lambda: env, brought)
    assert team.enter("accelerate").shared_encoder is not None


@pytest.mark.parametrize("first_burst", [True, False])
def test_the_clone_can_start_from_the_accelerators_encoder(first_burst):
    cloning = replace(CONFIG.cloning, copy_encoder=True, burst=0)
    team, _, stage, _ = make_team(("critic",), cloning=cloning)
    assert stage.imitation is not None
    stage.learn(2)
    encoders = {name: team.actors[name].inputs.encoders for name in team.actors}
    if not first_burst:
        stage.imitation.prepare_check()
        stage.learn(2)
        restored = stage.imitation.state_dict()
        stage.imitation.load_state_dict(restored)
    stage.imitation.prepare_check()
    student, teacher = (encoders[name].state_dict() for name in ("transformer", "accelerator"))
    assert all(torch.equal(student[key], teacher[key]) for key in teacher) == first_burst
    assert encoders["transformer"] is not encoders["accelerator"]


def test_an_encoder_that_is_not_there_cannot_be_copied():
    cloning = replace(CONFIG.cloning, copy_encoder=True)
    with pytest.raises(SlipstreamError, match=r"cloning.copy_encoder is on.*it reads privileged"):
        make_team(("accelerator", "critic"), cloning=cloning)


@pytest.mark.parametrize("shift", [0, 2])
def test_cloning_shifts_images_for_the_student_alone(shift):
    cloning = replace(CONFIG.cloning, shift=shift)
    team, _, stage, _ = make_team(("critic",), cloning=cloning)
    assert stage.imitation is not None
    seen = {"transformer": [], "accelerator": []}
    for name, images in seen.items():
        hook = lambda module, args, images=images: images.append(args[0]["rgb"])  # noqa: E731
        team.actors[name].register_forward_pre_hook(hook)
    stage.imitation.update()
    (student,), (teacher,) = seen.values()
    assert torch.equal(student, teacher) == (shift == 0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_cnn_accelerator_finds_the_known_optimum(algorithm, tmp_path):
    """Of ProbeImage, with shifted images; not to look at them earns 0.884."""
    start = preset("accelerator", "slipstream/ProbeImage-v0")
    config = replace(
        start,
        algorithm=algorithm,
        algorithms=AlgorithmsConfig(
            sac=SACConfig(actor_lr=1e-3, alpha=0.1), td3=TD3Config(actor_lr=1e-3)
        ),
        networks=replace(
            start.networks,
            cnn=replace(start.networks.cnn, segment=1),  # episodes of one step
            mlp=replace(start.networks.mlp, frame_stack=1),
            critic=replace(start.networks.critic, frame_stack=1),
        ),
        total_steps=900,
        batch_size=32,
        learning_starts=300,
        accelerate=replace(start.accelerate, replay_capacity=5_000),
        eval=EvalConfig(every=300, episodes=100),
        tensorboard=False,
        matmul="default",
    )
    run_dir = train(config, tmp_path / "run", show_progress=False)
    key = "eval/accelerator/return"
    returns = [line[key] for line in lines(run_dir) if key in line]
    blind = ProbeImage.blind_return()
    assert blind == pytest.approx(0.8844, abs=1e-4)
    assert returns[0] < blind + 0.04
    assert returns[-1] > ProbeImage.value - 0.25 * (ProbeImage.value - blind)
