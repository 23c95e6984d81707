"""200 seeded updates give the losses that are stored, so that no change of the maths goes unseen.

Where the maths is meant to change, store the new losses with `python -m tests.training.test_golden`
and say in the CHANGELOG, under "Performance-impacting", what changed and why.
"""

import json
from pathlib import Path

import pytest
import torch

from slipstream.networks import BACKBONES
from slipstream.networks.linear import set_matmul_backend
from tests.algorithms.batches import random_batch
from tests.algorithms.learners import ALGORITHMS, make_learner

STORED = Path(__file__).with_name("golden.json")
CASES = [
    f"{algorithm}-{kind}-none" for algorithm in sorted(ALGORITHMS) for kind in sorted(BACKBONES)
] + ["td3-mlp-transformer"]  # the last is the critics' memory
NUM_UPDATES = 200
EXACT_UPDATES = 50
"""Later, what processors round differently has grown beyond a tight tolerance."""


def losses(case: str) -> list[dict[str, float]]:
    """Critic and policy loss of every tenth update."""
    algorithm, kind, memory = case.split("-")
    set_matmul_backend("default")
    made = make_learner(algorithm, kind, memory)
    torch.manual_seed(0)
    found = []
    for update in range(1, NUM_UPDATES + 1):
        metrics = made.learner.update(random_batch(update, loss_steps=1 + update % 2))
        if update % 10 == 0:
            names = ("critic_loss", "actor_loss", "q", "target_q")
            found.append({name: metrics[name].item() for name in names})
    return found


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_stored(case):
    stored = json.loads(STORED.read_text())[case]
    found = losses(case)
    assert len(found) == len(stored) == NUM_UPDATES // 10
    for i, (one, other) in enumerate(zip(found, stored, strict=True)):
        exact = 10 * (i + 1) <= EXACT_UPDATES
        rel, absolute = (1e-4, 1e-5) if exact else (0.02, 0.01)
        assert one == pytest.approx(other, rel=rel, abs=absolute), f"update {10 * (i + 1)}"


if __name__ == "__main__":
    STORED.write_text(json.dumps({case: losses(case) for case in CASES}, indent=1) + "\n")
