"""Whole runs from images: what is rendered when, what it takes, and what the blind make of it."""

from collections import Counter
from dataclasses import replace
from unittest import mock

import pytest
import torch

from slipstream.cli import main
from slipstream.config import EnvConfig, RunConfig
from slipstream.envs import gl
from slipstream.envs.mujoco_cameras import MujocoCameras
from slipstream.errors import SlipstreamError
from slipstream.networks.cnn import CNNConfig
from slipstream.policies.policy import evaluate_policy, load_policy
from slipstream.presets import preset
from slipstream.replay import Placement, placement
from slipstream.stages.memory import Holding, place
from slipstream.training import describe, train
from slipstream.training.trainer import Trainer
from tests.tiny_runs import at_step, lines, tiny


@pytest.fixture(autouse=True)
def _needs_opengl():
    try:
        gl.open_context(8).free()
    except SlipstreamError as error:
        pytest.skip(str(error))


def images(**fields) -> RunConfig:
    """Nothing is cloned before the switch at step 120; three episodes of 20 steps then."""
    return tiny(
        **{
            "env_id": "InvertedPendulum-v5",
            "env": EnvConfig(obs="rgb", image_size=16, max_episode_steps=20),
            "privileged": ("accelerator", "critic"),
            "networks": replace(tiny().networks, cnn=CNNConfig((4,), (4,), (4,), embed_size=6)),
            "cloning": replace(tiny().cloning, every=0, own_episodes=3, frames=60),
            **fields,
        }
    )


@pytest.fixture
def rendered():
    """Counts what is rendered: ("present" or "state", step of the run)."""
    counts: Counter[str] = Counter()
    originals = {"render": MujocoCameras.render, "render_state": MujocoCameras.render_state}

    def spy(name):
        def call(self, *args):
            counts[name] += 1
            return originals[name](self, *args)

        return call

    with (
        mock.patch.object(MujocoCameras, "render", spy("render")),
        mock.patch.object(MujocoCameras, "render_state", spy("render_state")),
    ):
        yield counts


def test_stage_1_renders_nothing_but_what_is_cloned_from(rendered, tmp_path):
    before_cloning: list[Counter[str]] = []
    at_step(119, lambda: before_cloning.append(rendered.copy()))
    config = images()
    train(config, tmp_path / "run", show_progress=False)
    # Neither collecting nor learning nor two evaluations of the accelerator needed an image.
    assert before_cloning == [Counter()]
    # Stage 2 takes all rows along, of which 60 were rendered to be cloned from; none is rendered
    # twice. A step makes a row, each episode one more.
    assert 120 < rendered["render_state"] <= config.online.replay_capacity
    evaluated = [line for line in lines(tmp_path / "run") if "eval/transformer/return" in line]
    assert evaluated[0]["step"] >= 120
    assert evaluate_policy(load_policy(tmp_path / "run"), 2).returns


def test_who_looks_at_images_in_stage_1_has_them_rendered(rendered, tmp_path):
    config = images(privileged=("critic",), total_steps=60, stages=("accelerate",))
    train(config, tmp_path / "run", show_progress=False)
    assert rendered["render"] > 60 and rendered["render_state"] == 0


@pytest.mark.parametrize("sees", ["state", "rgb"])
def test_a_teacher_that_was_brought_along_decides_by_what_it_reads(sees, rendered, tmp_path):
    shown = EnvConfig(obs=sees, image_size=16, max_episode_steps=20)
    teacher = images(env=shown, privileged=(), stages=("accelerate",), total_steps=40)
    teacher = replace(teacher, cloning=replace(teacher.cloning, enabled=False))
    run_dir = train(teacher, tmp_path / "teacher", show_progress=False)
    rendered.clear()
    config = images(
        accelerator=f"slipstream:{run_dir}",
        accelerate=replace(images().accelerate, learn=False),
        stages=("accelerate",),
    )
    trainer = Trainer(config, tmp_path / "run", show_progress=False)
    trainer.state.interaction.begin(trainer.state.stage.collector, 0)
    assert bool(rendered["render"]) is (sees == "rgb")


def test_a_blind_run_is_the_same_run_without_a_picture(rendered, tmp_path):
    config = images(env=replace(images().env, blind=True))
    train(config, tmp_path / "run", show_progress=False)
    assert not rendered
    assert lines(tmp_path / "run")[-1]["event"] == "end"
    policy = load_policy(tmp_path / "run")
    assert not policy.open_env(1).reset(0)["rgb"].any()  # it is judged as it was trained


def test_the_updates_of_stage_2_have_a_ratio_of_their_own(tmp_path):
    online = replace(tiny().online, utd_ratio=0.25, eval_every=20)
    run_dir = train(tiny(online=online), tmp_path / "run", show_progress=False)
    found = lines(run_dir)
    switch = next(line["step"] for line in found if line.get("event") == "switch")
    updates = {line["step"]: line["num_updates"] for line in found if "num_updates" in line}
    assert updates[240] - updates[switch] == pytest.approx((240 - switch) / 4, abs=1)
    looks = [line["step"] for line in found if "eval/transformer/return" in line]
    assert [step for step in looks if step > switch] == [140, 160, 180, 200, 220, 240]


def test_what_a_run_holds_is_said_before_it_is_there(tmp_path):
    said = describe(images())
    assert "images to clone from: 60 rows, 0.0 MiB in memory" in said
    assert any(line.startswith("replay of stage accelerate: 1,000 rows, 0.1 MiB") for line in said)
    with (
        mock.patch("slipstream.training.trainer.Progress.message") as message,
        mock.patch("slipstream.stages.team.ReplayBuffer", side_effect=AssertionError("allocated")),
        pytest.raises(AssertionError, match="allocated"),
    ):
        Trainer(images(), tmp_path)
    assert "replay of stage online: 150 rows" in message.call_args.args[0]


def test_what_cannot_be_held_is_refused_before_anything_is(tmp_path, capsys):
    run = ["train", "InvertedPendulum-v5", "--preset", "quick", "--run-dir", str(tmp_path / "run")]
    with mock.patch.object(
        placement, "free_bytes", lambda where, *_: {"disk": 10, "device": 200}[where] * 2**20
    ):
        assert main([*run, "--dry-run"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "extra episodes to clone from: 10,000 rows, 11" in error and "does not fit" in error
        assert main([*run, "--dry-run", "--cloning.frames", "5000"]) == 0
        assert main([*run, "--dry-run", "--replay-device", "disk"]) == 2
        assert "change --replay-device" in capsys.readouterr().err


def test_what_does_not_fit_beside_the_rest_goes_further_away(tmp_path):
    config = images()
    spec = Trainer(config, tmp_path, show_progress=False).state.spec
    holding = Holding(spec, 1_000)
    room = {"device": 1.5 * holding.num_bytes, "host": 1.2 * holding.num_bytes, "disk": 2**40}
    with mock.patch.object(placement, "free_bytes", lambda where, *_: int(room[where])):
        places = place(
            {"accelerate": holding, "frames": holding, "online": holding},
            Placement("auto", tmp_path),
            torch.device("cuda:0"),
        )
    assert places == {"accelerate": "device", "frames": "host", "online": "disk"}


@pytest.mark.parametrize(
    ("env_id", "parts", "control"),
    [
        ("HalfCheetah-v5", {"rgb"}, None),
        ("PullCube-v1", {"rgb", "state"}, "pd_ee_delta_pos"),
        ("MS-HopperStand-v1", {"rgb", "state"}, None),
    ],
)
def test_the_quick_preset_renders_on_demand_and_is_filmed(env_id, parts, control):
    config = preset("quick", env_id)
    assert config.teacher_sees_state and config.cloning.every == 0
    assert set(config.env.parts) == parts
    assert config.env.kwargs.get("control_mode") == control
    assert config.video.enabled and config.video.when == ("end",)
