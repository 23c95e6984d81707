"""Who learns how fast: two-stage, from scratch, accelerator alone, and Stable-Baselines3.

Runs what is missing, one process a run, and keeps a thinned copy of each run's metrics in
`benchmarks/results/learning_study/<task>/<variant>/seed<k>/`. May be killed and started again.

    python -m benchmarks.learning_study --workers 2
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "learning_study"
KEPT_EVERY = 2_000  # env steps between the training lines that are kept

VARIANTS = {
    "two-stage": [],
    "two-stage-early": ["--switch.earliest", "0.5", "--switch.latest", "0.7"],
    "scratch": ["--preset", "scratch"],
    "accelerator": ["--preset", "accelerator"],
}


@dataclass(frozen=True)
class Task:
    """One run of the study."""

    env_id: str
    algorithm: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder below the results."""
        return f"{self.env_id}-{self.algorithm}/{self.variant}/seed{self.seed}"


@dataclass(frozen=True)
class Options:
    """The learning study."""

    workers: int = 1
    """Runs side by side; one core each."""
    total_steps: int = 40_000
    """Counted env steps of each run, both stages."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every variant."""
    tasks: tuple[str, ...] = ("HalfCheetah-v5-sac", "HalfCheetah-v5-td3", "Hopper-v5-td3")
    """Environment and algorithm."""
    variants: tuple[str, ...] = ("two-stage", "scratch", "accelerator", "sb3")
    """What is compared."""
    scratch_dir: Path = Path("runs/learning_study")
    """Where the whole run folders go (not kept in the repository)."""


def main(options: Options) -> None:
    tasks = [
        Task(*name.rsplit("-", 1), variant, seed)  # pyright: ignore[reportCallIssue]
        for name in options.tasks
        for seed in options.seeds
        for variant in options.variants
    ]
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda task: run(task, options), tasks))


def run(task: Task, options: Options) -> None:
    kept = RESULTS / task.name
    if (kept / "done.json").exists():
        return
    folder = options.scratch_dir / task.name
    command = sb3_command(task, options, folder)
    if task.variant != "sb3":
        command = slipstream_command(task, options, folder)
    if finished(folder):
        keep(folder, kept, command)
        return
    if folder.exists():
        shutil.rmtree(folder)
    print(" ".join(command), flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"seed{task.seed}.log").open("w") as log:
        process = subprocess.run(
            command,
            check=False,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
    if process.returncode:  # the others go on; this one is tried again by the next start
        print(f"failed ({process.returncode}): {task.name}, see {log.name}", flush=True)
        return
    keep(folder, kept, command)


def finished(folder: Path) -> bool:
    """Whether a run folder holds a whole run."""
    metrics = folder / "metrics.jsonl"
    return (folder / "done.json").exists() or (
        metrics.exists() and '"event": "end"' in metrics.read_text()
    )


def slipstream_command(task: Task, options: Options, folder: Path) -> list[str]:
    return [
        *(
            str(Path(sys.executable).with_name("slipstream")),
            "train",
            task.env_id,
            *VARIANTS[task.variant],
        ),
        *("--algorithm", task.algorithm, "--seed", str(task.seed)),
        *("--total-steps", str(options.total_steps)),
        *("--eval.every", "4000", "--eval.episodes", "10"),
        *("--checkpoint-every", "1000000", "--no-tensorboard", "--quiet"),
        *("--run-dir", str(folder)),
    ]


def sb3_command(task: Task, options: Options, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "benchmarks.sb3_baseline", task.env_id),
        *("--algorithm", task.algorithm, "--seed", str(task.seed)),
        *("--steps", str(options.total_steps), "--out", str(folder)),
    ]


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
