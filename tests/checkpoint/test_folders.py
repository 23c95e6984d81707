import contextlib
import errno
import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from slipstream import checkpoint
from slipstream.checkpoint import link, prune, resolve, save_checkpoint
from slipstream.checkpoint.tree import load_tree
from slipstream.errors import SlipstreamError


def save(run_dir: Path, step: int, value: float | None = None) -> Path:
    policy = {"d_model": 8}, {"weight": torch.full((4,), float(step))}
    state = {"step": step, "value": torch.full((1000,), step if value is None else value)}
    return save_checkpoint(run_dir, step, policy, state)


def test_a_checkpoint_is_found_by_run_link_and_folder(tmp_path):
    first, second = save(tmp_path, 100), save(tmp_path, 200)
    link(tmp_path, "best", 100)
    link(tmp_path, "last", 100)
    link(tmp_path, "last", 200)
    assert resolve(tmp_path) == second
    assert resolve(tmp_path, "best") == first
    assert resolve(tmp_path / "checkpoints" / "best") == first
    assert resolve(first) == first
    assert (tmp_path / "checkpoints" / "last").readlink() == Path("200")
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    assert resolve(moved) == moved / "checkpoints" / "200"
    assert load_tree(resolve(moved) / "training_state")["step"] == 200
    assert json.loads((resolve(moved) / "policy" / "config.json").read_text()) == {"d_model": 8}
    assert (resolve(moved) / "policy" / "model.safetensors").is_file()
    moved.rename(tmp_path)


def test_a_policy_may_write_itself(tmp_path):
    saved = save_checkpoint(tmp_path, 1, lambda folder: (folder / "mine").write_text("x"), {})
    (saved / "policy" / "mine").write_text("xy")
    with pytest.raises(SlipstreamError, match=r"mine is 2 bytes instead of 1"):
        resolve(saved)


def test_saving_over_a_step_replaces_it(tmp_path):
    save(tmp_path, 5, value=1.0)
    save(tmp_path, 5, value=2.0)
    link(tmp_path, "last", 5)
    assert load_tree(resolve(tmp_path) / "training_state")["value"][0] == 2.0
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["5", "last"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    saved = save(tmp_path, 5)
    link(tmp_path, "last", 5)
    saved.rename(tmp_path / "checkpoints" / ".5.replaced")
    assert resolve(tmp_path) == saved


def test_policies_alone_take_no_place_of_checkpoints_to_go_on_from(tmp_path):
    policy = {}, {"weight": torch.ones(4)}
    for step in (1, 2, 4):
        save(tmp_path, step)
    for step in (3, 5, 6):
        save_checkpoint(tmp_path, step, policy, {})
    link(tmp_path, "last", 4)
    link(tmp_path, "best", 5)
    prune(tmp_path, keep_last=2)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"2", "4", "5", "last", "best"}
    (tmp_path / "checkpoints" / "4" / "manifest.json").unlink()
    with pytest.raises(SlipstreamError, match=r"checkpoints/2 is intact"):  # not the policy alone
        resolve(tmp_path)


def test_prune_keeps_the_newest_and_what_is_linked(tmp_path):
    for step in (1, 2, 9, 10, 11):
        save(tmp_path, step)
    link(tmp_path, "best", 1)
    link(tmp_path, "last", 11)
    prune(tmp_path, keep_last=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "1",
        "10",
        "11",
        "best",
        "last",
    ]
    prune(tmp_path, keep_last=0)
    assert resolve(tmp_path).name == "11"
    assert resolve(tmp_path, "best").name == "1"


def damage_nothing_there(folder: Path) -> None:
    shutil.rmtree(folder)


def damage_missing_file(folder: Path) -> None:
    (folder / "training_state" / "tensors.safetensors").unlink()


def damage_truncated_tensors(folder: Path) -> None:
    path = folder / "training_state" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_truncated_policy(folder: Path) -> None:
    (folder / "policy" / "model.safetensors").write_bytes(b"")


def damage_no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def damage_truncated_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:40])


def damage_foreign(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": "other"}')


def damage_newer(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_nothing_there, "no checkpoint at"),
        (damage_missing_file, "is missing instead of"),
        (damage_truncated_tensors, "half-written"),
        (damage_truncated_policy, "is 0 bytes instead of"),
        (damage_no_manifest, "has no manifest.json: it is half-written or not"),
        (damage_truncated_manifest, "is damaged"),
        (damage_foreign, "was not written by slipstream"),
        (damage_newer, "has format version 99, this slipstream reads up to 1: upgrade"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_an_intact_one_named(tmp_path, damage, message):
    intact = save(tmp_path, 1)
    damaged = save(tmp_path, 2)
    link(tmp_path, "last", 2)
    damage(damaged)
    with pytest.raises(SlipstreamError, match=message) as error:
        resolve(tmp_path)
    assert f"{intact} is intact" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [damage_missing_file, damage_truncated_tensors])
def test_a_damaged_tree_is_refused(tmp_path, damage):
    damaged = save(tmp_path, 2)
    damage(damaged)
    with pytest.raises(SlipstreamError, match="half-written"):
        load_tree(damaged / "training_state")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_checkpoints_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlipstreamError, match=name):
        resolve(tmp_path / name)
    with pytest.raises(SlipstreamError, match="save it before linking best"):
        link(tmp_path / name, "best", 3)


@contextlib.contextmanager
def files_no_larger_than(num_bytes: int):
    """Have the system refuse to write more, as a full disk does."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    intact = save(tmp_path, 1)
    link(tmp_path, "last", 1)
    state = {"value": torch.ones(10**6)}
    with files_no_larger_than(50_000), pytest.raises(SlipstreamError) as error:
        save_checkpoint(tmp_path, 2, ({}, {"weight": torch.ones(4)}), state)
    assert "could not save" in str(error.value)
    assert "File too large" in str(error.value)
    assert f"{intact} is intact: make room" in str(error.value)
    assert resolve(tmp_path) == intact
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "last"]


@pytest.mark.parametrize("failing", ["save_tree", "_sync", "Path.rename", "Path.write_text"])
def test_any_refusal_of_the_disk_leaves_the_previous_checkpoint(tmp_path, failing):
    intact = save(tmp_path, 1)
    link(tmp_path, "last", 1)
    error = OSError(errno.ENOSPC, "No space left on device")
    with (
        mock.patch(f"slipstream.checkpoint.{failing}", side_effect=error),
        pytest.raises(SlipstreamError, match="No space left on device") as caught,
    ):
        save(tmp_path, 2)
    assert f"{intact} is intact" in str(caught.value)
    assert resolve(tmp_path) == intact
    assert not (tmp_path / "checkpoints" / "2").exists()
    save(tmp_path, 2)  # with room again the same step is saved


def test_a_failed_replacement_leaves_the_replaced_one(tmp_path):
    saved = save(tmp_path, 1, value=1.0)
    link(tmp_path, "last", 1)
    rename = Path.rename

    def refuse_the_second(path, target):
        if path.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    with mock.patch.object(Path, "rename", refuse_the_second), pytest.raises(SlipstreamError):
        save(tmp_path, 1, value=2.0)
    assert load_tree(resolve(tmp_path) / "training_state")["value"][0] == 1.0
    assert resolve(tmp_path) == saved


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    save(tmp_path, 1)
    with (
        mock.patch.object(checkpoint, "save_tree", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        save(tmp_path, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]


# Imports once, then forks savers and kills them; in a process of its own because forking one that
# has run threads is not safe.
KILLED = """
import itertools, json, os, random, signal, sys, time
from pathlib import Path
import torch
from slipstream.checkpoint import link, prune, resolve, save_checkpoint
from slipstream.checkpoint.tree import load_tree

torch.set_num_threads(1)
run_dir, rng, start = Path(sys.argv[1]), random.Random(0), 1
for _ in range(15):
    reader, writer = os.pipe()
    saver = os.fork()
    if saver == 0:
        for step in itertools.count(start):
            value = torch.full((100_000,), float(step))
            for name in (step, 0):  # a new checkpoint, and one that is saved over again and again
                policy = {"step": step}, {"weight": value}
                save_checkpoint(run_dir, name, policy, {"value": value})
                link(run_dir, "last", name)
                os.write(writer, f"{step} ".encode())
            prune(run_dir, keep_last=2)
    os.close(writer)
    announced = os.read(reader, 10).decode()  # at least one is done
    time.sleep(rng.uniform(0.0, 0.1))
    os.kill(saver, signal.SIGKILL)
    os.waitpid(saver, 0)
    announced += os.read(reader, 10**6).decode()
    last = resolve(run_dir)
    value = load_tree(last / "training_state")["value"]
    assert (value == value[0]).all()
    assert json.loads((last / "policy" / "config.json").read_text())["step"] == value[0]
    assert value[0] >= max(map(int, announced.split())), "a finished checkpoint was lost"
    start = int(value[0]) + 1
print(start)
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 15
    save(tmp_path, int(result.stdout))  # and the next run cleans up what was left
    assert not list((tmp_path / "checkpoints").glob(".*.*"))
