"""Writes run folders as a real run leaves them, with curves shaped like real ones."""

import json
import math
from pathlib import Path

import numpy as np

VERSIONS = {
    "slipstream": "0.1.0",
    "torch": "2.13.0",
    "gymnasium": "1.4.0",
    "mujoco": "4.0.0",
    "python": "3.11.9",
    "platform": "Linux-x86_64",
}


def write_folder(folder: Path, config: dict, lines: list[dict], torn: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "versions.json").write_text(json.dumps(VERSIONS))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + torn)
    return folder


def config_of(seed: int, **changes) -> dict:
    return {
        "env_id": "HalfCheetah-v5",
        "preset": "default",
        "seed": seed,
        "total_steps": 60_000,
        "algorithm": "sac",
        "stages": ["accelerate", "online"],
        "transformer": {"d_model": 64, "n_layers": 2, "context_length": 5},
    } | changes


def sample_lines(
    seed: int,
    stages: tuple[str, ...] = ("accelerate", "online"),
    total_steps: int = 60_000,
    peak: float = 5500.0,
    decay: float = 0.0,
) -> list[dict]:
    """A run that switches near the middle; `decay` makes the transformer lose after it."""
    rng = np.random.default_rng(seed)
    switch = 28_000 + 2000 * (seed % 3) if len(stages) == 2 else None
    wall, eval_steps, num_updates = 0.0, 0, 0
    parts = dict.fromkeys(("act", "learn", "clone", "eval"), 0.0)
    accelerator = -280.0
    lines: list[dict] = []

    def add(step: int, stage: str, **metrics) -> None:
        common = {"num_updates": num_updates, "eval_steps": eval_steps, "wall_seconds": wall}
        lines.append({"step": step, "stage": stage, **common, **metrics})

    def evaluation(actor: str, mean: float) -> dict:
        returns = rng.normal(mean, 40 + abs(mean) * 0.06, size=10)
        return {
            f"eval/{actor}/return": float(returns.mean()),
            f"eval/{actor}/return_std": float(returns.std()),
            f"eval/{actor}/returns": returns.tolist(),
            f"eval/{actor}/length": 1000.0,
        }

    for step in range(0, total_steps + 1, 1000):
        stage = "accelerate" if switch is None or step <= switch else "online"
        stage = stages[0] if len(stages) == 1 else stage
        curve = peak * (1 - math.exp(-step / 26_000)) - 280
        if step:
            num_updates = step
            parts["act"] += 0.6
            parts["learn"] += 5.0 if stage == "accelerate" else 7.5
            parts["clone"] += 1.1 if stage == "accelerate" and len(stages) == 2 else 0.0
            add(
                step,
                stage,
                **{
                    "rollout/episode_return": float(rng.normal(0.85 * curve, 260)),
                    "rollout/episode_length": 1000,
                },
            )
            add(
                step,
                stage,
                **{
                    "train/critic_loss": float(rng.uniform(4, 9)),
                    "train/actor_loss": float(-curve / 40),
                    "train/q": float(curve / 38 + rng.normal(0, 3)),
                    "train/target_q": float(curve / 38 + 1.5 + rng.normal(0, 3)),
                    "train/alpha": 0.2 * math.exp(-step / 2e4),
                },
            )
            if parts["clone"] and stage == "accelerate":
                error = 0.3 * math.exp(-step / 12_000) + 0.02
                add(
                    step,
                    stage,
                    **{
                        "clone/loss": float(error * rng.uniform(0.8, 1.2)),
                        "clone/own_state_error": float(1.6 * error * rng.uniform(0.8, 1.2)),
                    },
                )
        if step % 4000 == 0:
            eval_steps += 10_000
            parts["eval"] += 2.0
            metrics: dict = {}
            if step == 0:
                metrics |= evaluation("random", -280.0)
            if stage == "accelerate":
                accelerator = curve + float(rng.normal(0, 120))
                metrics |= evaluation("accelerator", accelerator)
            if "online" in stages:
                own = curve if stage == "online" else 0.94 * accelerator
                if switch is not None and stage == "online":
                    own -= decay * (step - switch)
                metrics |= evaluation("transformer", own + float(rng.normal(0, 90)))
            wall = 1.06 * sum(parts.values())
            metrics |= {f"time/{name}_seconds": value for name, value in parts.items()}
            add(step, stage, **metrics)
        wall = 1.06 * sum(parts.values())
        if step == switch:
            reason = "matched: clone 0.97 and 0.96 of the accelerator on two checks"
            lines.append({"step": step, "stage": stage, "event": "switch", "reason": reason})
    lines.append({"step": total_steps, "stage": stages[-1], "event": "end"})
    return lines


def sample_runs(folder: Path, num_seeds: int = 3, **shape) -> list[Path]:
    """Three seeds of a two-stage run, seed 1 with a rollback and a torn last line."""
    paths = []
    for seed in range(num_seeds):
        lines = sample_lines(seed, **shape)
        torn = ""
        if seed == 1:
            reason = "below 0.7 of the best evaluation for 3 checks"
            event = {"step": 44_000, "stage": "online", "event": "rollback", "reason": reason}
            lines.insert(-1, event)
            torn = '{"step": 60000, "stage": "onl'
        path = folder / "HalfCheetah-v5" / "default" / f"seed{seed}-20260101-120000"
        paths.append(write_folder(path, config_of(seed), lines, torn))
    return paths
