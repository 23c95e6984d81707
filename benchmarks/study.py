"""Runs of a study: start what is missing, keep what a reader needs.

One process a run. A thinned copy of each run's metrics is kept in
`benchmarks/results/<study>/<task>/<variant>/seed<k>/`; a folder with a `done.json` is finished and
skipped, so a study may be killed and started again.

    python -m benchmarks.study learning --workers 2
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.studies import STUDIES, Study

RESULTS = Path(__file__).parent / "results"
KEPT_EVERY = 2_000  # env steps between the training lines that are kept


@dataclass(frozen=True)
class Options:
    """Run what is missing of a study."""

    study: Annotated[str, tyro.conf.Positional]
    """Its name in benchmarks/studies.py."""
    workers: int = 1
    """Runs side by side; one core each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every variant."""
    tasks: tuple[str, ...] = ()
    """Some of the study's tasks; all by default."""
    variants: tuple[str, ...] = ()
    """Some of its variants; all by default."""
    scratch_dir: Path = Path("runs/studies")
    """Where the whole run folders go (not kept in the repository)."""


@dataclass(frozen=True)
class Run:
    """One run of a study."""

    study: Study
    task: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder below the results."""
        return f"{self.study.name}/{self.task}/{self.variant}/seed{self.seed}"

    def command(self, folder: Path) -> list[str]:
        """What is run, as a user would."""
        options = self.study.tasks[self.task]
        env_id = options.env_id
        if self.variant == "sb3":
            return [
                *(sys.executable, "-m", "benchmarks.sb3_baseline", env_id),
                *("--algorithm", options.algorithm, "--seed", str(self.seed)),
                *("--steps", str(options.total_steps), "--out", str(folder)),
            ]
        return [
            *(str(Path(sys.executable).with_name("slipstream")), "train", env_id),
            *self.study.variants[self.variant].arguments,
            *options.arguments,
            *("--algorithm", options.algorithm, "--seed", str(self.seed)),
            *("--total-steps", str(options.total_steps)),
            *("--eval.every", str(options.eval_every)),
            *("--eval.episodes", str(options.episodes)),
            *("--checkpoint-every", "1000000", "--no-tensorboard", "--no-video", "--quiet"),
            *("--run-dir", str(folder)),
        ]


def main(options: Options) -> None:
    """Run what is missing, seed after seed, so that an interrupted study is an even one."""
    study = STUDIES[options.study]
    runs = [
        Run(study, task, variant, seed)
        for task in options.tasks or study.tasks
        for seed in options.seeds
        for variant in options.variants or study.variants
    ]
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda run: perform(run, options.scratch_dir), runs))


def perform(run: Run, scratch_dir: Path) -> None:
    """Do one run unless it is kept already."""
    kept, folder = RESULTS / run.name, scratch_dir / run.name
    if is_kept(kept):
        return
    if not complete(run.command(folder), folder, kept):
        # The others go on; this one is tried again by the next start.
        print(f"failed: {run.name}, see {folder.with_suffix('.log')}", flush=True)


def is_kept(kept: Path) -> bool:
    """Whether the results hold this run."""
    return (kept / "done.json").exists()


def complete(command: list[str], folder: Path, kept: Path) -> bool:
    """Run a command unless its run folder is whole, then keep what a reader needs.

    Returns:
        Whether it ended well.
    """
    # Beside the folder, for a study may have given its name another meaning since.
    told, wanted = folder.with_suffix(".command.json"), json.dumps(command)
    if not (finished(folder) and told.exists() and told.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        if not start(command, folder.with_suffix(".log")):
            return False
        told.write_text(wanted)
    keep(folder, kept, command)
    return True


def start(command: list[str], log: Path) -> bool:
    """Run a command on one core, its output in a file; whether it ended well."""
    print(" ".join(command), flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        process = subprocess.run(
            command,
            check=False,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
    return process.returncode == 0


def finished(folder: Path) -> bool:
    """Whether a run folder holds a whole run."""
    metrics = folder / "metrics.jsonl"
    return (folder / "done.json").exists() or (
        metrics.exists() and '"event": "end"' in metrics.read_text()
    )


def keep(folder: Path, kept: Path, command: list[str]) -> None:
    """Copy what a reader needs: every evaluation and event, and thinned training metrics."""
    kept.mkdir(parents=True, exist_ok=True)
    lines = []
    for text in (folder / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        evaluated = any(key.startswith("eval/") for key in line)
        if evaluated or "event" in line or line["step"] % KEPT_EVERY == 0:
            lines.append(json.dumps({key: _short(value) for key, value in line.items()}))
    (kept / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    for name in ("config.json", "versions.json"):
        if (folder / name).exists():
            shutil.copy(folder / name, kept / name)
    (kept / "done.json").write_text(
        json.dumps({"command": [Path(command[0]).name, *command[1:]]}, indent=2) + "\n"
    )


def _short(value: object) -> object:
    if isinstance(value, list):
        return [_short(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main(tyro.cli(Options))
