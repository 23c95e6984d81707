"""When to hand over: fixed moments and the automatic rule, all off the same stage 1.

One run a seed goes through stage 1 and keeps its checkpoints; every variant branches off the
checkpoint just before its switch (`slipstream branch`), so variants of a seed share their stage 1
to the bit. What is kept is skipped, so the study may be killed and started again; for what is
missing, a seed's stage 1 is run again unless its folder is still there.

    python -m benchmarks.switch_study --workers 2
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.study import RESULTS, complete, is_kept

LATEST = 0.8


@dataclass(frozen=True)
class Options:
    """Run what is missing."""

    workers: int = 1
    """Seeds side by side; one core each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every variant."""
    tasks: tuple[str, ...] = ()
    """Some of the tasks; all by default."""
    scratch_dir: Path = Path("runs/studies/switch")
    """Where the whole run folders go (not kept in the repository)."""


@dataclass(frozen=True)
class Task:
    """A task, its budget, and the moments that are tried (beside 80 %, the run they branch off).

    Attributes:
        flags: of `slipstream train`, after the environment's id.
        steps: counted steps.
        check_every: steps between the checks at which a run may switch.
        fixed: shares of all steps at which a run switches.
        earliest: share from which the rule `matched` looks, the default for such a task.
    """

    flags: tuple[str, ...]
    steps: int
    check_every: int
    fixed: tuple[float, ...]
    earliest: float

    @property
    def variants(self) -> dict[str, tuple[float, tuple[str, ...]]]:
        """Name -> the share of all steps before which it branches off, and what it changes."""
        matched = ("--switch.rule", "matched", "--switch.latest", str(LATEST))
        return {
            f"matched-from-{100 * self.earliest:.0f}": (
                self.earliest,
                (*matched, "--switch.earliest", str(self.earliest)),
            ),
            "accelerator": (LATEST, ("--switch.latest", "1.0")),
            **{
                f"at-{100 * share:.0f}": (share, ("--switch.latest", str(share)))
                for share in self.fixed
            },
        }

    def checkpoint(self, share: float) -> int:
        """Step of the checkpoint just before the check at a share of all steps."""
        return round(share * self.steps / self.check_every) * self.before

    @property
    def before(self) -> int:
        """Steps between checkpoints, which so come just before the checks."""
        return self.check_every - 1


ENV_ID = "HalfCheetah-v5"
TASKS = {
    ENV_ID: Task((), 60_000, 6_000, (0.5, 0.3, 0.7), 0.7),
    f"{ENV_ID}-paper-mask": Task(("--mask", "paper"), 40_000, 4_000, (0.4, 0.6, 0.2, 0.7), 0.4),
}
"""Name -> what is run, SAC on HalfCheetah."""


def command(arguments: list[str]) -> list[str]:
    """A command as a user would type it."""
    return [str(Path(sys.executable).with_name("slipstream")), *arguments, "--quiet"]


def perform(name: str, seed: int, scratch_dir: Path) -> None:
    """Every variant of one seed."""
    task = TASKS[name]
    trunk = scratch_dir / name / f"at-80/seed{seed}"
    whole = command(
        [
            *("train", ENV_ID, *task.flags, "--seed", str(seed), "--total-steps", str(task.steps)),
            *("--switch.rule", "at_step", "--switch.latest", str(LATEST)),
            *("--eval.every", str(task.check_every), "--eval.episodes", "10", "--no-tensorboard"),
            *("--checkpoint-every", str(task.before), "--keep-checkpoints", "20"),
            *("--run-dir", str(trunk)),
        ]
    )
    missing = {
        variant: what
        for variant, what in task.variants.items()
        if not is_kept(_kept(name, variant, seed))
    }
    if not missing and is_kept(_kept(name, "at-80", seed)):
        return
    _complete(whole, trunk, name, "at-80", seed)
    for variant, (share, changes) in missing.items():
        folder = scratch_dir / name / variant / f"seed{seed}"
        source = trunk / "checkpoints" / str(task.checkpoint(share))
        branch = command(["branch", str(source), "--run-dir", str(folder), *changes])
        _complete(branch, folder, name, variant, seed)


def _kept(name: str, variant: str, seed: int) -> Path:
    return RESULTS / "switch" / name / variant / f"seed{seed}"


def _complete(arguments: list[str], folder: Path, name: str, variant: str, seed: int) -> None:
    if not complete(arguments, folder, _kept(name, variant, seed)):
        raise SystemExit(
            f"failed: {name}, {variant}, seed {seed}, see {folder.with_suffix('.log')}"
        )


def main(options: Options) -> None:
    """Run what is missing."""
    runs = [(name, seed) for name in options.tasks or TASKS for seed in options.seeds]
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda run: perform(run[0], run[1], options.scratch_dir), runs))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
