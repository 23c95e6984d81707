"""The folder of a run: its name, its configuration, the versions that made it."""

import json
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from slipstream.errors import SlipstreamError

LOCK_SECONDS = 10.0
"""How long a run waits for its folder: environments in processes of their own outlive a killed run
by a moment, and its lock with them."""
METRICS, FOLDERS = "metrics.jsonl", ("checkpoints", "tb", "videos")
WRITTEN = (METRICS, *FOLDERS)
"""What a run measures and keeps, beside its configuration and its versions."""
PACKAGES = ("slipstream-rl", "torch", "gymnasium", "mujoco", "numpy")


def new_run_dir(root: Path, env_id: str, preset: str, seed: int) -> Path:
    """`<root>/<env>/<preset>/seed<k>-<time>`, not made yet; '/' in names becomes '_'."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = root / env_id.replace("/", "_") / preset.replace("/", "_")
    path = folder / f"seed{seed}-{stamp}"
    suffix = 1
    while path.exists():
        suffix += 1
        path = folder / f"seed{seed}-{stamp}-{suffix}"
    return path


def run_of(path: Path) -> Path:
    """The run that a checkpoint, or a folder in one, belongs to; else the folder itself."""
    whole = path.absolute()
    for folder in (path, *path.parents, whole, *whole.parents):  # as it is written, if possible
        if folder.name == "checkpoints" and (folder.parent / "config.json").exists():
            return folder.parent
    return path


def check_free(run_dir: Path) -> None:
    """Raise SlipstreamError where a folder holds a run already, or what a run would write over."""
    if (run_dir / "config.json").exists():
        raise SlipstreamError(
            f"{run_dir} already holds a run; go on with `slipstream resume {run_dir}` or choose "
            "another folder"
        )
    if taken := [name for name in WRITTEN if (run_dir / name).exists()]:
        raise SlipstreamError(
            f"{run_dir} holds {', '.join(taken)} already, where a run would write its own; choose "
            "another folder with --run-dir"
        )


def describe_run(run_dir: Path, config: dict[str, Any]) -> None:
    """Make the folder with `config.json` and `versions.json`.

    Raises:
        SlipstreamError: it cannot be written.
    """
    versions = {
        "slipstream" if name == "slipstream-rl" else name: _version(name) for name in PACKAGES
    }
    versions |= {"python": sys.version.split()[0], "platform": platform.platform()}
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
        (run_dir / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    except OSError as error:
        raise SlipstreamError(
            f"cannot write {run_dir}: {error.strerror}; choose another folder with --run-dir"
        ) from error


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Keep other processes from writing into a run's folder meanwhile.

    Raises:
        SlipstreamError: another one does.
    """
    lock = FileLock(run_dir / ".lock", timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise SlipstreamError(
            f"{run_dir} is being written by another process; wait for its end, or end it"
        ) from error
    except NotImplementedError:  # a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()


def forget(run_dir: Path) -> None:
    """Remove what a run measured and kept; its configuration stays."""
    (run_dir / METRICS).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(run_dir / name, ignore_errors=True)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
