"""When to hand over: five fixed moments and the automatic rule, all off the same stage 1.

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

ENV_ID, STEPS, CHECK_EVERY = "HalfCheetah-v5", 60_000, 6_000
LATEST = 0.8
FIXED = (0.5, 0.3, 0.7, 0.4, 0.6)
BEFORE = CHECK_EVERY - 1  # checkpoints come just before the checks at which a run may switch
MATCHED = ("--switch.rule", "matched", "--switch.latest", str(LATEST), "--switch.earliest")


@dataclass(frozen=True)
class Options:
    """Run what is missing."""

    workers: int = 1
    """Seeds side by side; one core each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every variant."""
    scratch_dir: Path = Path("runs/studies/switch")
    """Where the whole run folders go (not kept in the repository)."""


VARIANTS: dict[str, tuple[float, tuple[str, ...]]] = {
    "matched-from-70": (0.7, (*MATCHED, "0.7")),
    "accelerator": (LATEST, ("--switch.latest", "1.0")),
    **{f"at-{100 * share:.0f}": (share, ("--switch.latest", str(share))) for share in FIXED},
    "matched-from-30": (0.3, (*MATCHED, "0.3")),
}
"""Name -> the share of all steps before which it branches off, and what it changes."""


def command(arguments: list[str]) -> list[str]:
    """A command as a user would type it."""
    return [str(Path(sys.executable).with_name("slipstream")), *arguments, "--quiet"]


def perform(seed: int, scratch_dir: Path) -> None:
    """Every variant of one seed."""
    trunk = scratch_dir / f"at-80/seed{seed}"
    whole = command(
        [
            *("train", ENV_ID, "--seed", str(seed), "--total-steps", str(STEPS)),
            *("--switch.rule", "at_step", "--switch.latest", str(LATEST)),
            *("--eval.every", str(CHECK_EVERY), "--eval.episodes", "10", "--no-tensorboard"),
            *("--checkpoint-every", str(BEFORE), "--keep-checkpoints", "20"),
            *("--run-dir", str(trunk)),
        ]
    )
    missing = {name: v for name, v in VARIANTS.items() if not is_kept(_kept(name, seed))}
    if not missing and is_kept(_kept("at-80", seed)):
        return
    _complete(whole, trunk, "at-80", seed)
    for name, (share, changes) in missing.items():
        folder = scratch_dir / name / f"seed{seed}"
        source = trunk / "checkpoints" / str(round(share * STEPS / CHECK_EVERY) * BEFORE)
        branch = command(["branch", str(source), "--run-dir", str(folder), *changes])
        _complete(branch, folder, name, seed)


def _kept(name: str, seed: int) -> Path:
    return RESULTS / "switch" / name / f"seed{seed}"


def _complete(arguments: list[str], folder: Path, name: str, seed: int) -> None:
    if not complete(arguments, folder, _kept(name, seed)):
        raise SystemExit(f"failed: {name}, seed {seed}, see {folder.with_suffix('.log')}")


def main(options: Options) -> None:
    """Run what is missing."""
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda seed: perform(seed, options.scratch_dir), options.seeds))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
