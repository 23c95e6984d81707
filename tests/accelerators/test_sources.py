"""How a source is written, and whole runs that begin with one."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slipstream import checkpoint
from slipstream.accelerators import bring, settled
from slipstream.checkpoint.tree import load_tree
from slipstream.cli import main
from slipstream.config import EvalConfig, RunConfig, load, to_yaml
from slipstream.envs.observation import ObservationConfig
from slipstream.envs.setup import EnvConfig
from slipstream.errors import SlipstreamError
from slipstream.networks.critic import CriticConfig
from slipstream.networks.heads import Deterministic
from slipstream.policies.policy import load_policy
from slipstream.stages.accelerate import AccelerateConfig, parse_source
from slipstream.stages.imitation import CloningConfig
from slipstream.stages.switch import SwitchConfig
from slipstream.training import train
from slipstream.training.trainer import Trainer
from tests.accelerators.models import (
    observations,
    our_actions,
    pendulum,
    run_config,
    spec_of,
    write_model,
)
from tests.accelerators.test_called import MODULE, write_onnx
from tests.tiny_runs import events, lines, timeless, tiny

FROZEN = AccelerateConfig(replay_capacity=1_000, learn=False)


def test_sources_are_told_from_kinds_of_networks():
    assert parse_source("mlp") is None and parse_source("lstm:x") is None
    source = parse_source("onnx:C:/policy.onnx")
    assert source is not None and (source.scheme, source.place) == ("onnx", "C:/policy.onnx")
    assert str(source) == "onnx:C:/policy.onnx"
    with pytest.raises(SlipstreamError, match=r"'sb3:'; write sb3:model\.zip"):
        parse_source("sb3:")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"accelerator": "sb4:x.zip"},
            r"'sb4:x\.zip'; choose one of mlp, .*, or sb3:model\.zip, sl",
        ),
        ({"accelerator": "python:"}, r"write python:my_pkg\.module:function"),
        ({"transformer": "sb3:x.zip"}, r"transformer is 'sb3:x\.zip'; choose one of mlp"),
        ({"accelerator_normalize": "a.pkl"}, r"a\.pkl, but the accelerator is mlp; it belongs"),
        (
            {
                "accelerator": "sb3:x.zip",
                "stages": ("accelerate",),
                "cloning": CloningConfig(enabled=False),
            },
            r"nothing is cloned from it",
        ),
    ],
)
def test_impossible_sources_are_refused(fields, said):
    with pytest.raises(SlipstreamError, match=said):
        RunConfig("x", **fields)


def test_a_config_with_a_source_is_light_and_survives_yaml(tmp_path):
    config = RunConfig("x", accelerator="sb3:not/there.zip", accelerator_normalize="none")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load(path) == config
    with pytest.raises(SlipstreamError, match="must be at least 0"):
        AccelerateConfig(frozen_steps=-1)
    with pytest.raises(
        SlipstreamError, match=r"random_share is 1\.5; it must be at least 0 and at most 1"
    ):
        AccelerateConfig(random_share=1.5)


def test_no_accelerator_is_brought_to_a_run_that_has_none():
    assert bring(tiny(), pendulum()) is None
    config = run_config("sb3:not/there.zip", stages=("online",))
    assert bring(config, pendulum()) is None


def test_a_frozen_accelerator_hands_over_sooner(tmp_path):
    _, path = write_model(tmp_path, "PPO")
    switch = SwitchConfig(earliest=0.7)
    config = run_config(f"sb3:{path}", total_steps=100_000, switch=switch, accelerate=FROZEN)
    brought = bring(config, pendulum())
    assert settled(config, brought).switch.earliest == pytest.approx(0.2)
    assert settled(config, None) == config
    short = replace(config, total_steps=10_000)
    assert settled(short, brought) == short

    _, path = write_model(tmp_path, "SAC")
    learning = bring(run_config(f"sb3:{path}"), pendulum())
    assert settled(config, learning) == config


def test_an_accelerator_that_does_not_see_all_hands_over_sooner():
    seeing = run_config("mlp", switch=SwitchConfig())
    hidden = replace(seeing, env=EnvConfig(observe=ObservationConfig(mask="0-1")))
    assert settled(seeing, None).switch.earliest == 0.7
    assert settled(hidden, None).switch.earliest == 0.4
    assert settled(replace(hidden, privileged=("critic",)), None).switch.earliest == 0.4
    taught = replace(hidden, privileged=("accelerator", "critic"))
    assert settled(taught, None).switch.earliest == 0.7
    chosen = replace(hidden, switch=SwitchConfig(earliest=0.6))
    assert settled(chosen, None) == chosen


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_policies.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield tmp_path
    sys.modules.pop("own_policies", None)


def make_source(name, folder):
    """A source of a kind, and the algorithm that suits it."""
    if name.startswith("python"):
        return "python:own_policies:swing", name.partition("-")[2]
    if name.startswith("onnx"):
        return f"onnx:{write_onnx(folder / 'policy.onnx')}", name.partition("-")[2]
    if name.startswith("slipstream"):
        config = tiny(algorithm=name.partition("-")[2])
        return (
            f"slipstream:{train(config, folder / 'teacher', show_progress=False)}",
            config.algorithm,
        )
    library, algorithm = name.split("-")
    return f"sb3:{write_model(folder, library)[1]}", algorithm


@pytest.mark.parametrize(
    "name", ["SAC-sac", "TD3-td3", "PPO-td3", "python-sac", "onnx-td3", "slipstream-sac"]
)
def test_a_whole_run_begins_with_it_and_is_resumed_without_its_file(name, folder):
    source, algorithm = make_source(name, folder)
    learns = name in ("SAC-sac", "TD3-td3", "slipstream-sac")
    accelerate = replace(FROZEN, learn=learns)
    config = run_config("mlp", algorithm, keep_checkpoints=9, accelerate=accelerate)
    Path("tiny.yaml").write_text(to_yaml(config))
    command = ["train", "Pendulum-v1", "--config", "tiny.yaml", "--accelerator", source, "--quiet"]
    assert main([*command, "--run-dir", "run"]) == 0
    whole = timeless(Path("run"))
    (told,) = events(Path("run"), "accelerator")
    assert told["step"] == 0
    assert ("goes on learning, with its critics" in told["reason"]) == learns
    assert events(Path("run"), "switch")
    assert load_policy("run").spec.env_id == "Pendulum-v1"
    assert load(Path("run/config.json")).accelerator == source

    # Again from a checkpoint of stage 1, with the file gone: the same to the last figure.
    for used in (*Path().glob("*.zip"), *Path().glob("*.onnx")):
        used.unlink()
    shutil.rmtree("teacher", ignore_errors=True)
    early = min(int(p.name) for p in Path("run/checkpoints").iterdir() if p.name.isdecimal())
    assert early < 120
    assert main(["resume", f"run/checkpoints/{early}", "--quiet"]) == 0
    assert timeless(Path("run")) == whole


def test_a_frozen_accelerator_never_changes_and_a_learning_one_does(folder):
    _, path = write_model(folder, "SAC")
    for accelerate in (FROZEN, AccelerateConfig(replay_capacity=1_000, learn=True)):
        config = run_config(f"sb3:{path}", total_steps=100, accelerate=accelerate)
        trainer = Trainer(config, folder / str(accelerate.learn), show_progress=False)
        actor, critic = trainer.state.team.actors["accelerator"], trainer.state.team.critic
        before = [p.clone() for p in (*actor.parameters(), *critic.parameters())]
        num_actor = len(list(actor.parameters()))
        assert critic.ensemble.layers[0].weight.shape == (2, 4, 16)  # the file's sizes
        alpha = float(trainer.state.stage.learner.log_alpha.exp())  # pyright: ignore
        assert alpha == pytest.approx(0.3)
        trainer.run()
        after = [*actor.parameters(), *critic.parameters()]
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert all(moved[num_actor:])
        assert all(moved[:num_actor]) == accelerate.learn == any(moved[:num_actor])


def always_two(folder, **accelerate):
    """A run of 200 steps without updates, of a function that always gives 2; its actions."""
    Path("always.py").write_text("def two(obs):\n    return [2.0]\n")
    config = run_config(
        "python:always:two",
        "td3",
        total_steps=200,
        learning_starts=200,
        utd_ratio=0.0,
        stages=("accelerate",),
        accelerate=AccelerateConfig(replay_capacity=1_000, **accelerate),
    )
    trainer = Trainer(config, folder / "run", show_progress=False)
    trainer.run()
    assert not [line for line in lines(folder / "run") if "train/critic_loss" in line]
    return trainer.state.team.replay.sample(1_000, 1).action


def test_its_own_first_steps_are_not_random(folder):
    assert always_two(folder, random_share=0.0).min() > 0.5


def test_a_share_of_a_frozen_accelerators_steps_is_random(folder):
    action = always_two(folder, random_share=0.4)
    assert (action < 0.5).float().mean() == pytest.approx(0.4 * 0.75, abs=0.1)


def test_a_learning_accelerator_explores_widely_in_its_first_steps_alone(folder):
    _, path = write_model(folder, "TD3")
    trainer = Trainer(run_config(f"sb3:{path}", "td3"), folder / "run", show_progress=False)
    output = Deterministic(torch.ones(1_000, 1))
    stage = trainer.state.stage
    assert stage.random_share == 0.3 and not stage.frozen
    assert stage.explore(output).min() > 0.5
    far = (stage.explore(output, widely=True) < 0.5).float().mean()
    assert far == pytest.approx(0.3 * 0.75, abs=0.05)
    trainer.run()
    assert trainer.state.stage.name == "online" and trainer.state.stage.random_share == 0
    own = Trainer(tiny(), folder / "own", show_progress=False)
    assert own.state.stage.random_share == 0
    own.state.close()


def test_its_critics_come_along_into_stage_2(folder):
    _, path = write_model(folder, "SAC")
    trainer = Trainer(run_config(f"sb3:{path}"), folder / "run", show_progress=False)
    critic = trainer.state.team.critic
    trainer.run()
    assert trainer.state.stage.name == "online" and trainer.state.team.critic is critic
    assert trainer.state.stage.learner.critic is critic  # pyright: ignore


def teacher(folder, name="teacher", **fields):
    return train(tiny(**fields), folder / name, show_progress=False)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A finished run with all its checkpoints, not to be changed."""
    return teacher(tmp_path_factory.mktemp("taught"), keep_checkpoints=9)


def test_a_run_of_this_package_hands_over_policy_critics_and_temperature(taught):
    path = taught
    policy = load_policy(path)
    brought = bring(run_config(f"slipstream:{path}"), pendulum())
    assert brought is not None and brought.learns
    obs = observations()
    np.testing.assert_allclose(
        our_actions(brought.actor, obs), our_actions(policy.actor, obs), atol=1e-5
    )
    state = load_tree(checkpoint.resolve(path) / "training_state")
    for module, key in ((brought.critic, "critic"), (brought.critic_target, "critic_target")):
        assert module is not None
        for name, value in module.state_dict().items():
            assert torch.equal(value, state["team"]["networks"][key][name])
    log_alpha = state["stage_state"]["learner"]["log_alpha"]
    assert brought.alpha == pytest.approx(log_alpha.detach().exp().item())


def test_a_checkpoint_of_stage_1_has_other_critics_than_its_policy(taught):
    path = taught
    early = min(int(p.name) for p in (path / "checkpoints").iterdir() if p.name.isdecimal())
    source = f"slipstream:{path}/checkpoints/{early}"
    brought = bring(run_config(source, accelerate=FROZEN), pendulum())
    assert brought is not None and brought.critic is None and not brought.learns


def test_a_policy_alone_stays_as_it_is(folder, taught):
    shutil.copytree(checkpoint.resolve(taught) / "policy", folder / "alone")
    source = f"slipstream:{folder / 'alone'}"
    brought = bring(run_config(source, accelerate=FROZEN), pendulum())
    assert brought is not None and brought.critic is None and not brought.learns


def test_what_a_run_learnt_on_can_be_learnt_on_again(folder):
    """Critics that a run brought along have their file's sizes, not the configuration's."""
    _, model = write_model(folder, "SAC")
    path = train(run_config(f"sb3:{model}"), folder / "first", show_progress=False)
    brought = bring(run_config(f"slipstream:{path}"), pendulum())
    assert brought is not None and brought.learns and brought.critic is not None
    assert brought.critic.ensemble.layers[0].weight.shape == (2, 4, 16)


def test_critics_keep_their_normalization_where_the_policy_has_none(folder):
    """As after stage 2 with critics from elsewhere, such as an SB3 model's with VecNormalize."""
    first = teacher(folder, "first", env=replace(tiny().env, normalize_obs=True))
    second = train(run_config(f"slipstream:{first}"), folder / "second", show_progress=False)
    assert len(load_policy(second).actor.inputs.normalizers) == 0
    brought = bring(run_config(f"slipstream:{second}"), pendulum())
    assert brought is not None and brought.critic is not None
    state = load_tree(checkpoint.resolve(second) / "training_state")
    kept = state["team"]["networks"]["critic"]
    assert "inputs.normalizers.state.mean" in kept
    assert brought.critic.state_dict().keys() == kept.keys()
    for name, value in brought.critic.state_dict().items():
        assert torch.equal(value, kept[name])


def test_normalized_and_privileged_runs_come_along(folder):
    observe = ObservationConfig(mask="0-1")
    env = replace(tiny().env, normalize_obs=True, observe=observe, differences=False)
    fields = {"env": env, "privileged": ("accelerator", "critic")}
    path = teacher(folder, **fields)
    config = run_config(f"slipstream:{path}", env=env, privileged=("critic",))
    brought = bring(config, spec_of(config))
    assert brought is not None and brought.learns and brought.critic is not None
    assert brought.critic.inputs.keys == ("privileged",)
    obs = observations(size=2)
    policy = load_policy(path)
    np.testing.assert_allclose(
        our_actions(brought.actor, obs), our_actions(policy.actor, obs), atol=1e-5
    )
    plain = run_config(f"slipstream:{path}", env=env)
    with pytest.raises(SlipstreamError, match=r"critics read the whole .*--privileged critic, or"):
        bring(plain, spec_of(plain))
    # A policy for full observations becomes the privileged teacher of one that sees less.
    full = teacher(folder, "full", env=replace(tiny().env, normalize_obs=True))
    config = run_config(f"slipstream:{full}", **fields)
    brought = bring(config, spec_of(config))
    assert brought is not None and brought.actor.inputs.keys == ("privileged",)
    obs = observations()
    np.testing.assert_allclose(
        our_actions(brought.actor, obs, "privileged"),
        our_actions(load_policy(full).actor, obs),
        atol=1e-5,
    )


def test_a_run_in_another_environment_is_told_with_both_ids(taught):
    config = run_config(f"slipstream:{taught}", env_id="InvertedPendulum-v5")
    with pytest.raises(
        SlipstreamError, match=r"trained in Pendulum-v1, but .* InvertedPendulum-v5"
    ):
        bring(config, spec_of(config))
    config = replace(config, accelerate=AccelerateConfig(check_env=False))
    with pytest.raises(SlipstreamError, match=r"'state' of shape \(3,\), .* \{'state': \(4,\)\}"):
        bring(config, spec_of(config))
    with pytest.raises(SlipstreamError, match="does not exist"):
        bring(run_config("slipstream:nonesuch"), pendulum())


def test_a_policy_that_saw_other_things_is_refused(tmp_path):
    def seeing(mask: str, **kwargs: float) -> EnvConfig:
        return replace(tiny().env, observe=ObservationConfig(mask=mask), kwargs=kwargs)

    short = tiny(env=seeing("0"), total_steps=40)
    train(short, tmp_path / "run", show_progress=False)
    follows = replace(short, accelerator=f"slipstream:{tmp_path / 'run'}")
    spec = spec_of(follows)
    bring(follows, spec)
    others = {"mask='0'.*mask='1'.*no-check-env": seeing("1"), "kwargs.*9.8": seeing("0", g=9.8)}
    for said, env in others.items():
        with pytest.raises(SlipstreamError, match=said):
            bring(replace(follows, env=env), spec)
        bring(replace(follows, env=env, accelerate=AccelerateConfig(check_env=False)), spec)
    # Who sees everything there and here is not concerned.
    train(tiny(total_steps=40), tmp_path / "whole", show_progress=False)
    source = f"slipstream:{tmp_path / 'whole'}"
    hidden = replace(short, accelerator=source, privileged=("accelerator", "critic"))
    bring(hidden, spec_of(hidden))


def test_critics_with_memory_come_along(folder):
    networks = replace(tiny().networks, critic=CriticConfig(memory="gru", hidden=(8,)))
    path = teacher(folder, networks=networks, algorithm="td3")
    brought = bring(run_config(f"slipstream:{path}", "td3"), pendulum())
    assert brought is not None and brought.critic is not None
    assert brought.critic.context_length == networks.recurrent.context_length
    assert brought.critic.ensemble.layer_norm  # TD3's default


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--accelerator", "sb3:none.zip"], "none.zip does not exist; name the zip file"),
        (["--accelerator", "slipstream:none"], "none does not exist"),
        (["--accelerator", "onnx:none.onnx"], "none.onnx cannot be read"),
        (["--accelerator", "python:none:f"], "there is no module 'none'"),
        (["--accelerator", "tape:none"], "choose one of mlp"),
    ],
)
def test_bad_sources_on_the_command_line_are_told_in_one_line(arguments, said, folder, capsys):
    command = ["train", "Pendulum-v1", *arguments, "--run-dir", "run", "--quiet"]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("slipstream: ")
    assert said in err and not Path("run").exists()


@pytest.mark.parametrize("name", ["PPO-sac", "python-sac"])
def test_what_cannot_go_on_learning_is_told_when_it_is_to(name, folder, capsys):
    source, _ = make_source(name, folder)
    command = ["train", "Pendulum-v1", "--accelerator", source, "--accelerate.learn", "--dry-run"]
    assert main(command) == 2
    assert "cannot go on learning" in capsys.readouterr().err


def test_a_dry_run_tells_of_it(folder, capsys):
    _, path = write_model(folder, "TD3")
    command = ["train", "Pendulum-v1", "--algorithm", "td3", "--accelerator", f"sb3:{path}"]
    assert main([*command, "--dry-run"]) == 0
    assert "stays as it is, with its critics" in capsys.readouterr().out
    assert main([*command, "--accelerate.learn", "--dry-run"]) == 0
    assert "goes on learning, with its critics" in capsys.readouterr().out


def test_distilled_into_a_smaller_policy(folder, taught):
    """A transformer as the accelerator of an MLP, cloning alone: the same path."""
    config = run_config(
        f"slipstream:{taught}",
        transformer="mlp",
        stages=("accelerate",),
        total_steps=120,
        accelerate=FROZEN,
        eval=EvalConfig(every=120, episodes=2),
    )
    run_dir = train(config, folder / "small", show_progress=False)
    described = json.loads((run_dir / "checkpoints/last/policy/config.json").read_text())
    assert described["kind"] == "mlp"
