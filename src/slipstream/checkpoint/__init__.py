"""Checkpoints: safetensors and JSON, nothing pickled, never half a checkpoint under its final name.

```
<run>/checkpoints/<step>/
    policy/{config.json, model.safetensors}             what is needed to act
    training_state/{state.json, tensors.safetensors}    what is needed to go on, if it was kept
    manifest.json                                       format, step, size of every file
<run>/checkpoints/{last, best} -> <step>
```
A checkpoint is written under a hidden name, synced to the disk and renamed; a link is replaced in
one step. So whatever kills a run, `last` stays whole.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from slipstream.checkpoint.tree import FORMAT, VERSION, check_size, read_json, save_tree
from slipstream.errors import SlipstreamError

Policy = Callable[[Path], object] | tuple[Mapping[str, Any], Mapping[str, Tensor]]
LinkName = Literal["last", "best"]


def save_checkpoint(
    run_dir: Path, step: int, policy: Policy, training_state: Mapping[str, Any]
) -> Path:
    """Write `checkpoints/<step>`, whole or not at all; one of the same step is replaced.

    Args:
        run_dir: the run's folder.
        step: env steps taken.
        policy: writes the policy into the folder it is given, or a config and its tensors, for
            `config.json` and `model.safetensors`.
        training_state: a tree as for `save_tree`; empty to keep the policy alone.

    Returns:
        The checkpoint's folder. No link points to it yet: see `link`.

    Raises:
        SlipstreamError: the disk is full or refuses; what was saved before is untouched.
    """
    root = run_dir / "checkpoints"
    final = root / str(step)
    partial = root / f".{step}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _clean(root)
        (partial / "policy").mkdir(parents=True)
        if callable(policy):
            policy(partial / "policy")
        else:
            config, tensors = policy
            (partial / "policy" / "config.json").write_text(json.dumps(config, indent=2))
            contiguous = {key: value.detach().contiguous() for key, value in tensors.items()}
            save_file(contiguous, partial / "policy" / "model.safetensors")
        if training_state:
            save_tree(partial / "training_state", training_state)
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "step": step,
            "files": {path.relative_to(partial).as_posix(): path.stat().st_size for path in files},
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2))
        for path in (*partial.rglob("*"), partial):
            _sync(path)
        if final.exists():  # a folder cannot be replaced in one step: `_recover` bridges the gap
            final.rename(root / f".{step}.replaced")
        partial.rename(final)
        _sync(root)
        shutil.rmtree(root / f".{step}.replaced", ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        _recover(root)
        raise SlipstreamError(
            f"could not save {final}: {error}; {_intact(root)}: make room on the disk and resume"
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def link(run_dir: Path, name: LinkName, step: int) -> None:
    """Point `checkpoints/<name>` at `checkpoints/<step>`, in one step.

    Raises:
        SlipstreamError: no such checkpoint, or the disk refuses.
    """
    root = run_dir / "checkpoints"
    if not (root / str(step)).is_dir():
        raise SlipstreamError(f"{root / str(step)} does not exist: save it before linking {name}")
    temporary = root / f".{name}.link"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(str(step))
        temporary.replace(root / name)
        _sync(root)
    except OSError as error:
        raise SlipstreamError(
            f"could not point {root / name} at step {step}: {error}; {_intact(root)}"
        ) from error


def resolve(path: Path, name: LinkName = "last") -> Path:
    """Find the checkpoint that is meant, and check that it is whole.

    Args:
        path: a run folder, a checkpoint folder, or a link such as `checkpoints/best`.
        name: which of a run folder's checkpoints.

    Returns:
        The checkpoint's own folder, links followed.

    Raises:
        SlipstreamError: none there, half-written, or of a foreign or newer format.
    """
    if name not in get_args(LinkName):
        raise SlipstreamError(f"checkpoint is '{name}'; choose {' or '.join(get_args(LinkName))}")
    root = path / "checkpoints"
    if root.is_dir():
        _recover(root)
        wanted = root / name
    elif path.parent.name == "checkpoints":
        root = path.parent
        _recover(root)
        wanted = path
    else:
        wanted = path
        if runs := _runs(path):
            raise SlipstreamError(
                f"{path} is no run but holds {len(runs)}, such as {runs[0]}: give one of them"
            )
    if not wanted.is_dir():
        if not path.exists():
            raise SlipstreamError(f"{path} does not exist: give a run folder or a checkpoint")
        raise SlipstreamError(
            f"no checkpoint at {wanted}; {_intact(root)}: give a run folder or a checkpoint"
        )
    wanted = wanted.resolve()
    try:
        _check_whole(wanted)
    except SlipstreamError as error:
        raise SlipstreamError(f"{error} ({_intact(wanted.parent)})") from error
    return wanted


def can_resume(checkpoint: Path) -> bool:
    """Whether a checkpoint holds more than a policy."""
    return (checkpoint / "training_state").is_dir()


def never_saved(run_dir: Path) -> bool:
    """Whether a run ended before its first checkpoint that it could go on from."""
    root = run_dir / "checkpoints"
    _recover(root)
    return not (root.is_dir() and any(can_resume(root / str(step)) for step in _steps(root)))


def prune(run_dir: Path, keep_last: int) -> None:
    """Remove all but the newest checkpoints; those that `last` and `best` point at stay.

    Args:
        run_dir: the run's folder.
        keep_last: how many of the newest to keep, of those that a run can go on from.
    """
    root = run_dir / "checkpoints"
    linked = {(root / name).resolve().name for name in ("last", "best") if (root / name).exists()}
    steps = _steps(root)
    resumable = [step for step in steps if can_resume(root / str(step))]
    kept = resumable[max(len(resumable) - keep_last, 0) :]
    for step in steps:
        if step not in kept and str(step) not in linked:
            _remove(root, step)


def drop_newer(run_dir: Path, step: int) -> list[int]:
    """Remove the checkpoints of later steps, and a link that points at one of them.

    Returns:
        Their steps, oldest first.
    """
    root = run_dir / "checkpoints"
    newer = [other for other in _steps(root) if other > step]
    for link in (root / "last", root / "best"):
        if link.resolve().name in map(str, newer):
            link.unlink()
    for other in newer:
        _remove(root, other)
    return newer


def _remove(root: Path, step: int) -> None:
    # Out of sight first: a kill in the middle leaves no half-removed checkpoint.
    hidden = root / f".{step}.removed"
    (root / str(step)).rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _check_whole(checkpoint: Path) -> None:
    manifest = read_json(checkpoint / "manifest.json")
    for name, num_bytes in manifest["files"].items():
        check_size(checkpoint / name, num_bytes)


def _runs(folder: Path) -> list[Path]:
    """Runs in a folder as `slipstream train` lays them out: <env>/<preset>/seed<k>-<time>."""
    found = (folder.glob(f"{above}checkpoints") for above in ("*/", "*/*/", "*/*/*/"))
    return sorted(checkpoints.parent for depth in found for checkpoints in depth)


def _steps(root: Path) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first."""
    return sorted(int(path.name) for path in root.iterdir() if path.name.isdecimal())


def _intact(root: Path) -> str:
    """Say which checkpoint can be used instead."""
    steps = _steps(root) if root.is_dir() else []
    for step in sorted(steps, key=lambda step: (can_resume(root / str(step)), step), reverse=True):
        try:
            _check_whole(root / str(step))
        except SlipstreamError:
            continue
        return f"the checkpoint {root / str(step)} is intact"
    return "there is no earlier checkpoint"


def _recover(root: Path) -> None:
    """Put back a checkpoint that was about to be replaced when the run was killed."""
    if not root.is_dir():
        return
    for replaced in root.glob(".*.replaced"):
        final = root / replaced.name.split(".")[1]
        if not final.exists():
            replaced.rename(final)


def _clean(root: Path) -> None:
    """Remove what a killed run left behind."""
    _recover(root)
    for suffix in ("partial", "replaced", "removed"):
        for leftover in root.glob(f".*.{suffix}"):
            shutil.rmtree(leftover)


def _sync(path: Path) -> None:
    """Have the disk hold a file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
