"""A run that was killed, interrupted or starved of disk goes on as if nothing had happened."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from slipstream.checkpoint import resolve
from slipstream.checkpoint.tree import load_tree
from slipstream.cli import main
from slipstream.config import EnvConfig
from slipstream.envs import gl
from slipstream.envs.observation import ObservationConfig
from slipstream.errors import SlipstreamError
from slipstream.judging.referee import Referee
from slipstream.networks.cnn import CNNConfig
from slipstream.networks.critic import CriticConfig
from slipstream.training import branch, config_of, resume, train
from tests.stages.pictures import CNN
from tests.tiny_runs import (
    at_step,
    branch_by_cli,
    in_child,
    lines,
    resume_by_cli,
    timeless,
    tiny,
    train_by_cli,
    train_on_a_full_disk,
    train_until,
)

# The two runs differ in more than the algorithm, so that more kinds of state must survive.
CONFIGS = {
    "td3": tiny(algorithm="td3", env=EnvConfig(normalize_obs=True, max_episode_steps=20)),
    "sac": tiny(
        algorithm="sac",
        env=EnvConfig(num_envs=2, max_episode_steps=20),
        cloning=replace(tiny().cloning, own_episodes=1),
        utd_ratio=0.7,
    ),
    "hidden": tiny(
        env=EnvConfig(
            observe=ObservationConfig(mask="0,1", noise=0.1, drop=0.2, delay=1),
            prev_action=True,
            prev_reward=True,
            differences=True,
            max_episode_steps=20,
        ),
        accelerator="lstm",
        privileged=("critic",),
    ),
    "shared memory": tiny(
        algorithm="td3",
        accelerator="gru",
        networks=replace(
            tiny().networks, critic=CriticConfig(memory="gru", hidden=(16,)), share_memory=True
        ),
    ),
    "images": tiny(
        env_id="tests.stages.pictures:picture",
        env=EnvConfig(num_envs=2),
        networks=replace(tiny().networks, cnn=CNN, share_encoder=False),
        cloning=replace(tiny().cloning, copy_encoder=True, shift=2),
    ),
    "images, td3": tiny(
        algorithm="td3",
        env_id="tests.stages.pictures:picture",
        networks=replace(tiny().networks, cnn=CNN),
        cloning=replace(tiny().cloning, every=0),
    ),
    "images, frozen": tiny(
        env_id="tests.stages.pictures:picture",
        networks=replace(tiny().networks, cnn=CNN),
        online=replace(tiny().online, freeze_encoder=True),
    ),
    # Simulator states in a file, images of the newest, embeddings of them in stage 2.
    "images on demand": tiny(
        env_id="InvertedPendulum-v5",
        env=EnvConfig(obs="rgb", image_size=16, max_episode_steps=20),
        privileged=("accelerator", "critic"),
        networks=replace(tiny().networks, cnn=CNNConfig((4,), (4,), (4,), embed_size=6)),
        cloning=replace(tiny().cloning, own_episodes=1, frames=50),
        online=replace(tiny().online, utd_ratio=0.5, eval_every=30),
        replay_device="disk",
    ),
}
KILLS = {"stage 1": 95, "stage 2": 215}  # the checkpoints before: 80 and 200


@pytest.fixture(scope="module", params=CONFIGS)
def whole(request, tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp(request.param)
    config = CONFIGS[request.param]
    if request.param == "images on demand":
        try:
            gl.open_context(8).free()
        except SlipstreamError as error:
            pytest.skip(str(error))
    status, _, err = in_child(folder, train_by_cli, config, folder / "whole")
    assert status == 0, err
    return config, folder / "whole"


def state_of(run_dir):
    state = load_tree(resolve(run_dir) / "training_state")
    del state["seconds"], state["log_position"]  # how long it took, and how many digits that has
    state["metrics"] = {k: v for k, v in state["metrics"].items() if not k.startswith("time/")}
    return state


def differences(one, other, place="state"):
    """Every place where two states differ, bit for bit."""
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{place}: {one.keys()} and {other.keys()}"]
        return [d for key in one for d in differences(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{place}: {len(one)} and {len(other)} long"]
        return [
            d
            for i, (a, b) in enumerate(zip(one, other, strict=True))
            for d in differences(a, b, f"{place}[{i}]")
        ]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [place]
    if isinstance(one, np.ndarray):
        return [] if np.array_equal(one, other) else [place]
    return [] if one == other else [f"{place}: {one} and {other}"]


def assert_same_end(run_dir, whole_dir):
    """Weights, optimizers, replay, random numbers and the log are those of the whole run."""
    assert differences(state_of(run_dir), state_of(whole_dir)) == []
    assert timeless(run_dir) == timeless(whole_dir)
    for name in ("last", "best"):
        one, other = (resolve(each, name) / "policy" for each in (run_dir, whole_dir))
        assert one.parent.name == other.parent.name
        assert (one / "model.safetensors").read_bytes() == (
            other / "model.safetensors"
        ).read_bytes()
    finals = [sorted(p.name for p in (d / "checkpoints").iterdir()) for d in (run_dir, whole_dir)]
    assert finals[0] == finals[1]


@pytest.mark.parametrize("when", KILLS)
def test_killed_and_resumed_equals_uninterrupted(whole, when, tmp_path):
    config, whole_dir = whole
    run_dir = tmp_path / "run"
    status, _, _ = in_child(tmp_path, train_until, config, run_dir, KILLS[when], signal.SIGKILL)
    assert status == -signal.SIGKILL
    saved = load_tree(resolve(run_dir) / "training_state")
    assert KILLS[when] - 40 < saved["step"] < KILLS[when]
    assert saved["stage"] == ("accelerate" if when == "stage 1" else "online")
    assert lines(run_dir)[-1]["step"] > saved["step"]  # work was lost, and is to be done again

    status, out, err = in_child(tmp_path, resume_by_cli, run_dir)
    assert (status, out.strip()) == (0, str(run_dir)), err
    assert_same_end(run_dir, whole_dir)


def test_a_branch_with_nothing_changed_equals_the_run_it_left(whole, tmp_path):
    _, whole_dir = whole
    before = sorted(whole_dir.rglob("*"))
    run_dir = tmp_path / "branch"
    source = whole_dir / "checkpoints" / "200"
    status, _, err = in_child(tmp_path, branch_by_cli, source, run_dir)
    assert status == 0, err
    assert differences(state_of(run_dir), state_of(whole_dir)) == []
    assert timeless(run_dir) == timeless(whole_dir)
    assert sorted(whole_dir.rglob("*")) == before


def test_a_finished_run_goes_on_in_a_branch_with_more_steps(whole, tmp_path):
    _, whole_dir = whole
    run_dir = tmp_path / "branch"
    status, out, err = in_child(
        tmp_path,
        branch_by_cli,
        whole_dir,
        run_dir,
        *("--total-steps", "280", "--utd-ratio", "2", "--online.utd-ratio", "2"),
    )
    assert (status, out.strip()) == (0, str(run_dir)), err
    assert state_of(run_dir)["step"] >= 280
    assert [line["step"] for line in lines(run_dir) if line.get("event") == "switch"] == [
        line["step"] for line in lines(whole_dir) if line.get("event") == "switch"
    ]
    begun = state_of(whole_dir)
    ends = [line["step"] for line in lines(run_dir) if line.get("event") == "end"]
    assert ends == [state_of(run_dir)["step"]]  # that of the run it left is not its own
    done = state_of(run_dir)["num_updates"] - begun["num_updates"]
    assert done == pytest.approx(2 * (280 - begun["step"]), abs=2)


def test_a_branch_with_another_seed_is_another_run(ended, tmp_path):
    episodes, told = set(), []
    for seed in (0, 1, 2):
        config = replace(config_of(ended), seed=seed)
        source = ended / "checkpoints" / "80"
        run_dir = branch(source, config, tmp_path / f"seed{seed}", show_progress=False)
        key = "rollout/episode_return"
        episodes.add(tuple(line[key] for line in lines(run_dir) if key in line)[4:])
        told += [line["reason"] for line in lines(run_dir) if line.get("event") == "branch"]
    assert len(episodes) == 3
    assert told[0].endswith("80, exactly where it stood")
    assert told[2].endswith("80, with seed 2 in place of 0")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--total-steps", "300", "--networks.transformer.d-ff", "32"], "must keep its sizes"),
        ([], "has taken all of total_steps 240"),
    ],
)
def test_a_branch_that_cannot_be_says_so_and_leaves_nothing(whole, tmp_path, flags, said):
    _, whole_dir = whole
    status, _, err = in_child(tmp_path, branch_by_cli, whole_dir, tmp_path / "b", *flags)
    assert status == 2
    assert err.count("\n") == 1
    assert said in err
    assert not (tmp_path / "b").exists()


def test_a_run_that_came_to_no_checkpoint_begins_again(whole, tmp_path):
    config, whole_dir = whole
    run_dir = tmp_path / "run"
    status, _, err = in_child(tmp_path, train_until, config, run_dir, 35, signal.SIGKILL)
    assert status == -signal.SIGKILL, err
    assert lines(run_dir) and not (run_dir / "checkpoints" / "last").exists()

    status, _, err = in_child(tmp_path, resume_by_cli, run_dir)
    assert status == 0, err
    assert_same_end(run_dir, whole_dir)


def test_interrupted_and_resumed_equals_uninterrupted(whole, tmp_path):
    config, whole_dir = whole
    number = {"td3": signal.SIGINT, "sac": signal.SIGTERM}[config.algorithm]
    run_dir = tmp_path / "run"
    status, out, err = in_child(tmp_path, train_until, config, run_dir, 133, number)
    assert status == 130
    assert out == ""
    assert err.count("\n") == 1
    assert f"slipstream resume {run_dir}" in err
    saved = load_tree(resolve(run_dir) / "training_state")
    assert saved["step"] >= 133 and max(line["step"] for line in lines(run_dir)) <= saved["step"]

    status, _, err = in_child(tmp_path, resume_by_cli, run_dir)
    assert status == 0, err
    assert differences(state_of(run_dir), state_of(whole_dir)) == []
    assert timeless(run_dir) == timeless(whole_dir)


def test_resuming_a_finished_run_changes_nothing(whole, tmp_path, capsys):
    _, whole_dir = whole
    run_dir = tmp_path / "run"
    shutil.copytree(whole_dir, run_dir, symlinks=True)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert main(["resume", str(run_dir)]) == 0
    assert "finished" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def one_line_error(capsys, *arguments):
    assert main(list(map(str, arguments))) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("slipstream: ") and "Traceback" not in err
    assert out == ""
    return err


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed behind its checkpoints 40 and 80."""
    folder = tmp_path_factory.mktemp("killed")
    config = tiny(algorithm="td3")
    status, _, _ = in_child(folder, train_until, config, folder / "run", 110, signal.SIGKILL)
    assert status == -signal.SIGKILL
    return folder / "run"


@pytest.fixture
def stopped(killed, tmp_path):
    """A copy of the killed run to do harm to."""
    return Path(shutil.copytree(killed, tmp_path / "run", symlinks=True))


def test_damaged_checkpoints_are_told_of_and_the_one_before_works(stopped, capsys):
    last = resolve(stopped)
    assert last.name == "80"
    # Half-written: a file is cut short, as by a disk that lost its cache.
    path = last / "training_state" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    error = one_line_error(capsys, "resume", stopped, "--quiet")
    intact = stopped / "checkpoints" / "40"
    assert "half-written" in error and f"{intact} is intact" in error
    # Foreign: somebody else's file of that name.
    (last / "manifest.json").write_text(json.dumps({"format": "another"}))
    assert "not written by slipstream" in one_line_error(capsys, "resume", stopped, "--quiet")
    shutil.rmtree(last / "training_state")
    (last / "manifest.json").unlink()
    assert "manifest.json" in one_line_error(capsys, "resume", stopped, "--quiet")

    assert main(["resume", str(intact), "--quiet"]) == 0
    assert lines(stopped)[-1]["event"] == "end"
    assert resolve(stopped).name == "240"


def test_a_checkpoint_of_another_run_is_refused(stopped, capsys):
    config = json.loads((stopped / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps({**config, "algorithm": "sac"}))
    assert "does not fit" in one_line_error(capsys, "resume", stopped, "--quiet")
    (stopped / "config.json").write_text(
        json.dumps({**config, "env_id": "MountainCarContinuous-v0"})
    )
    assert "does not fit" in one_line_error(capsys, "resume", stopped, "--quiet")
    (stopped / "config.json").write_text(json.dumps(config))
    assert main(["resume", str(stopped), "--quiet"]) == 0


def test_what_is_no_run_is_refused(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "nonesuch"):
        assert f"{path} holds no run" in one_line_error(capsys, "resume", path)
    (tmp_path / "config.json").write_text(json.dumps({"env_id": "Pendulum-v1"}))
    assert "manifest.json" in one_line_error(capsys, "resume", tmp_path)
    (tmp_path / "config.json").write_text("[")
    assert "config.json" in one_line_error(capsys, "resume", tmp_path)


def test_a_run_whose_checkpoints_are_gone_does_not_begin_again(stopped, capsys):
    for training_state in stopped.glob("checkpoints/*/training_state"):
        shutil.rmtree(training_state)
    (stopped / "checkpoints" / "last").unlink()
    before = (stopped / "metrics.jsonl").read_bytes()
    assert "no checkpoint at" in one_line_error(capsys, "resume", stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_with_the_policy_alone_is_refused(stopped, capsys):
    best = resolve(stopped, "best")
    assert best.name == "60"  # an evaluation, not a period of checkpoints
    assert "policy only" in one_line_error(capsys, "resume", stopped / "checkpoints" / "best")


def test_killed_just_behind_the_switch_the_log_is_whole(tmp_path):
    """No checkpoint but that of the switch, at a step whose training metrics are logged too."""
    config = tiny(algorithm="td3", checkpoint_every=1_000)
    status, _, err = in_child(tmp_path, train_by_cli, config, tmp_path / "whole")
    assert status == 0, err
    run_dir = tmp_path / "run"
    in_child(tmp_path, train_until, config, run_dir, 125, signal.SIGKILL)
    assert resolve(run_dir).name == "120"
    status, _, err = in_child(tmp_path, resume_by_cli, run_dir)
    assert status == 0, err
    assert timeless(run_dir) == timeless(tmp_path / "whole")


def policy_at(run_dir, name):
    return load_file(resolve(run_dir, name) / "policy" / "model.safetensors")


@pytest.fixture
def ended(tmp_path):
    """A run that was best at its second evaluation, at step 120."""
    config = tiny(algorithm="td3", total_steps=160, stages=("online",), keep_checkpoints=9)
    run_dir = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        rank_by_step(patch, best=120)
        train(config, run_dir, show_progress=False)
    assert resolve(run_dir, "best").name == "120"
    return run_dir


def rank_by_step(patch, best):
    """Let the evaluation at one step be the best, without changing what is learnt."""
    look = Referee.look

    def ranked(referee, step, *args, **kwargs):
        verdict = look(referee, step, *args, **kwargs)
        return replace(verdict, best=step in (0, best))

    patch.setattr(Referee, "look", ranked)


def test_best_never_points_into_a_future_that_was_given_up(ended, monkeypatch):
    """Back to step 40: the best of then is that of step 0, and 120 is to be decided anew."""
    abandoned = policy_at(ended, "best")
    state = load_tree(ended / "checkpoints" / "40" / "training_state")
    config = json.loads((ended / "config.json").read_text())
    (ended / "config.json").write_text(json.dumps({**config, "utd_ratio": 2.0}))  # another future
    rank_by_step(monkeypatch, best=120)
    seen = []
    at_step(41, lambda: seen.append((resolve(ended, "best").name, policy_at(ended, "best"))))
    resume(ended / "checkpoints" / "40", show_progress=False)

    ((step, policy),) = seen
    assert step == "0"
    for key, value in policy.items():
        assert torch.equal(value, state["best"]["networks"]["transformer"][key])
    assert lines(ended)[-1]["event"] == "end"
    (told,) = [line["reason"] for line in lines(ended) if line.get("event") == "resume"]
    assert "dropped: 80, 120, 160" in told
    # Evaluated at the same step again: the new weights are kept, not the folder of then.
    assert resolve(ended, "best").name == "120"
    best = load_tree(resolve(ended) / "training_state")["best"]["networks"]["transformer"]
    for key, value in policy_at(ended, "best").items():
        assert torch.equal(value, best[key])
    assert any(not torch.equal(value, abandoned[key]) for key, value in best.items())


def test_a_branch_that_never_does_better_has_the_best_that_it_inherited(ended, monkeypatch):
    rank_by_step(monkeypatch, best=120)
    config = replace(config_of(ended), total_steps=240)
    run_dir = branch(ended, config, ended.parent / "branch", show_progress=False)
    assert resolve(run_dir, "best").name == "120"
    best, inherited = policy_at(run_dir, "best"), policy_at(ended, "best")
    assert all(torch.equal(best[key], value) for key, value in inherited.items())


@pytest.mark.parametrize(
    ("num_bytes", "tensorboard"), [(20_000, False), (2_000, True)], ids=["checkpoint", "log"]
)
def test_a_full_disk_is_one_line_and_the_checkpoint_before_works(num_bytes, tensorboard, tmp_path):
    run_dir = tmp_path / "run"
    config = tiny(algorithm="td3", tensorboard=tensorboard)
    status, out, err = in_child(tmp_path, train_on_a_full_disk, config, run_dir, 95, num_bytes)
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and "Traceback" not in err, err
    assert ("120" if num_bytes > 2_000 else "metrics.jsonl") in err and "resume" in err
    assert resolve(run_dir).name == "80"

    status, _, err = in_child(tmp_path, resume_by_cli, run_dir)
    assert status == 0, err
    assert lines(run_dir)[-1]["event"] == "end"
