"""Experiment trackers beside `metrics.jsonl`: Weights & Biases and trackio, each an extra."""

import importlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from slipstream.errors import SlipstreamError

TrackerName = Literal["wandb", "trackio"]
PROJECT = "slipstream"
FILE = "trackers.json"


class Tracker(Protocol):
    """Somewhere that measured numbers go as well."""

    name: TrackerName

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one line of the log; `step` counts environment transitions."""
        ...

    def event(self, step: int, text: str) -> None:
        """Take what happened, in words."""
        ...

    def close(self) -> None:
        """Send what is left; closing twice is allowed."""
        ...


def import_tracker(name: TrackerName) -> Any:
    """The tracker's package.

    Raises:
        SlipstreamError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SlipstreamError(
            f"log_to names {name}, but the package {error.name or name} is not installed; install "
            f"it with: pip install 'slipstream-rl[{name}]'"
        ) from error


def open_trackers(
    names: Iterable[TrackerName], run_dir: Path, config: Mapping[str, Any], resumed: bool
) -> list[Tracker]:
    """Begin the run at each tracker, or go on with it.

    What the run is called there stands in `run_dir/trackers.json`; a resumed run goes on under
    the same identity.

    Args:
        names: the trackers, imported here.
        run_dir: the run's folder.
        config: the run's whole configuration, plain values.
        resumed: whether this run goes on from a checkpoint.

    Raises:
        SlipstreamError: a package is missing, or a tracker refuses.
    """
    opened: list[Tracker] = []
    try:
        for name in names:
            opened += [_TRACKERS[name](run_dir, config, resumed)]
    except BaseException:
        for tracker in opened:
            tracker.close()
        raise
    return opened


class WandbTracker:
    """A Weights & Biases run; `WANDB_MODE`, `WANDB_PROJECT` and its other variables hold.

    The steps are a metric of their own, `step`, which all others are drawn over: W&B's own counter
    may not stand still, while several lines of the log share a step.
    """

    name: TrackerName = "wandb"

    def __init__(self, run_dir: Path, config: Mapping[str, Any], resumed: bool) -> None:
        wandb = import_tracker("wandb")
        identity = _identity(run_dir, self.name, config)
        try:
            self._run: Any = wandb.init(
                project=identity["project"],
                name=identity["name"],
                id=identity["id"],
                group=_group(config),
                config=dict(config),
                dir=str(run_dir),
                resume="allow" if resumed else None,
                # Capturing the console would come between the terminal and the progress display.
                settings=wandb.Settings(console="off"),
            )
        except Exception as error:
            raise SlipstreamError(
                f"Weights & Biases did not begin the run ({_first_line(error)}); log in with "
                "`wandb login`, or stay offline with WANDB_MODE=offline"
            ) from error
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one line."""
        self._run.log({**values, "step": step})

    def event(self, step: int, text: str) -> None:
        """Take what happened into the run's summary, which also holds the last of each metric."""
        self._run.summary[f"event/{step}"] = text

    def close(self) -> None:
        """Finish the run; what was not sent yet stays in the run's folder for `wandb sync`."""
        if self._run is not None:
            self._run.finish()
            self._run = None


class TrackioTracker:
    """A trackio run, in trackio's local database; `trackio show` draws it."""

    name: TrackerName = "trackio"

    def __init__(self, run_dir: Path, config: Mapping[str, Any], resumed: bool) -> None:
        trackio = import_tracker("trackio")
        identity = _identity(run_dir, self.name, config)
        try:
            self._run: Any = trackio.init(
                project=identity["project"],
                name=identity["name"],
                group=_group(config),
                config=dict(config),
                resume="allow" if resumed else "never",
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        except Exception as error:
            raise SlipstreamError(
                f"trackio did not begin the run ({_first_line(error)}); mend that, or leave "
                "trackio out of --log-to"
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one line."""
        self._run.log(dict(values), step=step)

    def event(self, step: int, text: str) -> None:
        """Take what happened as a text of that step."""
        self._run.log({"event": text}, step=step)

    def close(self) -> None:
        """Finish the run, once all of it is in the database."""
        if self._run is not None:
            self._run.finish()
            self._run = None


_TRACKERS = {"wandb": WandbTracker, "trackio": TrackioTracker}


def _group(config: Mapping[str, Any]) -> str:
    """What the seeds of one experiment share."""
    return f"{config['env_id']} {config['preset']}".replace("/", "_")


def _identity(run_dir: Path, name: TrackerName, config: Mapping[str, Any]) -> dict[str, str]:
    """Project, name and id of this run at a tracker: as they were given first."""
    path = run_dir / FILE
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
        if name not in known:
            known[name] = {
                "project": os.environ.get(f"{name.upper()}_PROJECT") or PROJECT,
                "name": f"{_group(config)} {run_dir.resolve().name}",
                # Not from a seeded generator: that would change the run, and repeat.
                "id": secrets.token_hex(4),
            }
            run_dir.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(known, indent=2) + "\n")
        return known[name]
    except (OSError, ValueError, TypeError) as error:
        raise SlipstreamError(
            f"cannot use {path} ({_first_line(error)}); remove it to begin a new run at {name}"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
