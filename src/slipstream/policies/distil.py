"""Distil down: a trained policy as the accelerator of a smaller one, by the same two actors."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from slipstream import config as configuration
from slipstream.checkpoint import resolve
from slipstream.config import RunConfig
from slipstream.errors import SlipstreamError
from slipstream.policies.policy import Policy, evaluate_policy, load_policy

NUM_STEPS = 300  # of which the latency's median is taken


@dataclass(frozen=True)
class Standing:
    """What a policy is worth and what it costs.

    Attributes:
        returns: of its episodes, in the environment's units.
        microseconds: median time of one step for one environment on this machine.
        num_parameters: of its networks.
    """

    returns: tuple[float, ...]
    microseconds: float
    num_parameters: int


def distil_config(run: Path, to: str, total_steps: int, own_episodes: int) -> RunConfig:
    """The run that distils a policy: stage 1 alone, with that policy as a frozen accelerator.

    Args:
        run: the run's folder, or one of its checkpoints.
        to: the smaller policy's kind of network (BACKBONES), at the sizes of the run's own config.
        total_steps: env steps in which it is shown to its pupil.
        own_episodes: episodes of the pupil itself, labelled by its teacher, before the last burst
            of cloning.

    Raises:
        SlipstreamError: no run there.
    """
    folder = resolve(run, "last").parent.parent
    if not (folder / "config.json").exists():
        raise SlipstreamError(f"{folder} holds no run (no config.json); give a run's folder")
    start = configuration.load(folder / "config.json")
    return replace(
        start,
        preset="distil",
        stages=("accelerate",),
        accelerator=f"slipstream:{run}",
        accelerator_normalize=None,
        transformer=to,
        privileged=(),
        total_steps=total_steps,
        learning_starts=0,
        utd_ratio=0.0,  # nothing is learnt but the clone
        accelerate=replace(start.accelerate, learn=False, replay_capacity=total_steps + 1),
        cloning=replace(
            start.cloning, enabled=True, source="relabel", own_episodes=own_episodes, every=2
        ),
        eval=replace(start.eval, every=max(1, total_steps // 4)),
    )


def standing(policy: Policy, episodes: int, seed: int = 0) -> Standing:
    """Evaluate a policy and time it, on one thread."""
    evaluation = evaluate_policy(policy, episodes, seed)
    rng = np.random.default_rng(0)
    obs = {
        key: rng.integers(0, 256, (1, *value.shape)).astype(value.dtype)
        if value.dtype == "uint8"
        else rng.normal(size=(1, *value.shape)).astype(value.dtype)
        for key, value in policy.spec.obs.items()
    }
    carry, seconds = policy.initial_carry(1), []
    for _ in range(NUM_STEPS):
        start = time.perf_counter()
        _, carry = policy.step(obs, carry)
        seconds.append(time.perf_counter() - start)
    count = sum(parameter.numel() for parameter in policy.actor.parameters())
    return Standing(evaluation.returns, 1e6 * median(seconds), count)


def compare(teacher: Path, pupil: Path, episodes: int) -> dict[str, Standing]:
    """Both policies on the same episode seeds: "teacher" and "pupil"."""
    return {
        "teacher": standing(load_policy(teacher), episodes),
        "pupil": standing(load_policy(pupil), episodes),
    }
