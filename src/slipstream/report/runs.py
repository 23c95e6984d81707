"""Reads run folders: what was configured, what was measured, what happened."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slipstream.errors import SlipstreamError

# Settings in which the seeds of one group may differ: they choose a repetition, not a method.
REPETITION_KEYS = frozenset(
    {"seed", "tensorboard", "log_to", "log_every", "checkpoint_every", "keep_checkpoints", "video"}
)


class Series(NamedTuple):
    """One metric of one run, each array (num_points,)."""

    step: np.ndarray
    wall_seconds: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        path: the folder.
        config: the run's whole configuration.
        versions: name -> version of what it ran with.
        lines: the lines of `metrics.jsonl` that measure something, in order.
        events: the lines that tell what happened.
    """

    path: Path
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]

    @property
    def env_id(self) -> str:
        """The environment's name."""
        return str(self.config.get("env_id", "unknown environment"))

    @property
    def preset(self) -> str:
        """The preset's name; the folder above the run where the configuration has none."""
        return str(self.config.get("preset") or self.path.resolve().parent.name)

    @property
    def seed(self) -> Any:
        """The seed, or the folder's name where the configuration has none."""
        return self.config.get("seed", self.path.name)

    @property
    def total_steps(self) -> int:
        """Counted steps the run was asked for."""
        return int(self.config.get("total_steps") or self.last_step)

    @property
    def last_step(self) -> int:
        """Counted steps the run reached."""
        return max((entry["step"] for entry in (*self.lines, *self.events)), default=0)

    @property
    def finished(self) -> bool:
        """Whether the run reached its end."""
        ended = any(event["event"] == "end" for event in self.events)
        return ended or self.last_step >= self.total_steps

    @property
    def eval_steps(self) -> int:
        """Environment steps spent on evaluation, not among the counted ones."""
        return int(max((line.get("eval_steps") or 0 for line in self.lines), default=0))

    @property
    def wall_seconds(self) -> float:
        """Seconds the run took."""
        return float(max((line.get("wall_seconds") or 0.0 for line in self.lines), default=0.0))

    @property
    def switch(self) -> Mapping[str, Any] | None:
        """The event that handed over to the transformer, if there was one."""
        return next((event for event in self.events if event["event"] == "switch"), None)

    @property
    def rollbacks(self) -> list[Mapping[str, Any]]:
        """The times the run went back to its best snapshot."""
        return [event for event in self.events if event["event"] == "rollback"]

    def wall_at(self, step: int) -> float:
        """Seconds passed when the run was at `step`."""
        walls = [
            line["wall_seconds"]
            for line in self.lines
            if line["step"] <= step and line.get("wall_seconds") is not None
        ]
        return float(max(walls, default=0.0))

    def series(self, key: str) -> Series:
        """The finite values of one metric; empty where it was never measured."""
        steps: list[int] = []
        walls: list[float] = []
        values: list[float] = []
        wall = 0.0
        for line in self.lines:
            wall = line.get("wall_seconds") or wall
            value = line.get(key)
            if isinstance(value, int | float):
                steps.append(line["step"])
                walls.append(wall)
                values.append(value)
        return Series(np.array(steps), np.array(walls), np.array(values, dtype=float))


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        env_id: the environment's name.
        name: the preset's, and where it ran with several settings those that differ.
        runs: one for each seed.
        repeats: those that repeat a seed, which tell nothing of the spread between seeds.
    """

    env_id: str
    name: str
    runs: tuple[Run, ...]
    repeats: tuple[Run, ...] = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages these runs were asked for."""
        return tuple(self.runs[0].config.get("stages") or ())

    @property
    def kind(self) -> str:
        """What was trained, in two or three words."""
        kinds = {
            ("accelerate", "online"): "two stages",
            ("accelerate",): "accelerator alone",
            ("online",): "transformer from scratch",
        }
        return kinds.get(self.stages, " then ".join(self.stages))

    @property
    def actor(self) -> str:
        """Whose return this group stands for: the last stage's learner."""
        return "accelerator" if self.stages == ("accelerate",) else "transformer"


def load_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in `folders` and below them, in order, each once.

    Below a folder, runs that have measured nothing yet are passed over.

    Raises:
        SlipstreamError: a folder does not exist, neither is a run nor holds one, or a run cannot be
            read.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise SlipstreamError(f"no run folder at {folder}; `slipstream train` makes one")
        if (folder / "config.json").exists() or (folder / "metrics.jsonl").exists():
            runs = [load_run(folder)]
        else:
            below = sorted(path.parent for path in folder.rglob("metrics.jsonl"))
            runs = [run for path in below if (run := _load(path)) is not None]
        if not runs:
            raise SlipstreamError(
                f"{folder} is no run and holds none that measured anything; give a folder such as "
                "runs/<env>/<preset>/seed0-<time>"
            )
        for run in runs:
            found.setdefault(run.path.resolve(), run)
    if not found:
        raise SlipstreamError("no run folder was given; name one, such as runs/<env>/<preset>")
    return list(found.values())


def load_run(folder: Path) -> Run:
    """Reads one run folder; a torn last line (a killed run) is left out.

    Raises:
        SlipstreamError: the folder is no run, it measured nothing, or one of its files cannot be
            read.
    """
    run = _load(folder)
    if run is None:
        raise SlipstreamError(
            f"{folder / 'metrics.jsonl'} is empty: the run measured nothing yet; let it train for "
            "a while, or leave it out"
        )
    return run


def _load(folder: Path) -> Run | None:
    """As `load_run`, and None for a run that measured nothing."""
    for name in ("config.json", "metrics.jsonl"):
        if not (folder / name).is_file():
            raise SlipstreamError(
                f"{folder} is no run folder: {name} is missing; give the folder that "
                "`slipstream train` printed, such as runs/<env>/<preset>/seed0-<time>"
            )
    lines = _read_lines(folder / "metrics.jsonl")
    if not lines:
        return None
    versions = folder / "versions.json"
    return Run(
        path=folder,
        config=_read_object(folder / "config.json"),
        versions=_read_object(versions) if versions.is_file() else {},
        lines=[line for line in lines if "event" not in line],
        events=[line for line in lines if "event" in line],
    )


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Seeds of the same environment, preset and settings together, in order of appearance.

    Where one preset ran with different settings, the settings that differ become part of the name.
    """
    flat = {id(run): _flatten(run.config) for run in runs}
    by_settings: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        settings = json.dumps(flat[id(run)], sort_keys=True, default=str)
        by_settings[run.env_id, run.preset, settings].append(run)
    groups: list[Group] = []
    for (env_id, preset, _), members in by_settings.items():
        siblings = [
            flat[id(others[0])]
            for (other_env, other_preset, _), others in by_settings.items()
            if (other_env, other_preset) == (env_id, preset)
        ]
        own = flat[id(members[0])]
        differing = [
            f"{key}={_brief(own.get(key))}"
            for key in sorted({key for sibling in siblings for key in sibling})
            if any(sibling.get(key) != own.get(key) for sibling in siblings)
        ]
        name = f"{preset} ({', '.join(differing[:3])})" if differing else preset
        members.sort(key=lambda run: (str(run.seed).zfill(8), run.last_step, str(run.path)))
        kept = {run.seed: run for run in members}  # of each seed the longest, or else the newest
        repeats = [run for run in members if kept[run.seed] is not run]
        groups.append(Group(env_id, name, tuple(kept.values()), tuple(repeats)))
    return groups


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys, without those that only choose a repetition."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key in REPETITION_KEYS:
            continue
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _brief(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SlipstreamError(f"cannot read {path}: {error}; restore it from a backup") from error
    if not isinstance(content, dict):
        raise SlipstreamError(f"{path} holds no JSON object; restore it from a backup")
    return content


def _read_lines(path: Path) -> list[dict[str, Any]]:
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
            if not isinstance(line, dict) or "step" not in line:
                raise ValueError("it has no step")
        except ValueError as error:
            if number == len(texts):
                break  # the run was killed, or is still writing this line
            raise SlipstreamError(
                f"{path}, line {number} is no metrics line ({error}); delete that line"
            ) from error
        lines.append(line)
    return lines
