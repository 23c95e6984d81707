"""Stage 2: what the transformer takes over from stage 1, and what keeps it from falling apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from slipstream.settings import Count, NotNegative, PartOfOne, Rate, Settings


@dataclass(frozen=True)
class OnlineConfig(Settings, section="online"):
    """Stage 2, and what it takes over from stage 1."""

    replay_capacity: Annotated[int, Ge(2)] = 20_000
    """Rows of replay in stage 2."""
    utd_ratio: Rate | None = None
    """Updates for each env step; None for as many as in stage 1."""
    eval_every: Count | None = None
    """Env steps between two evaluations; None for eval.every."""
    carry_rows: NotNegative | None = None
    """Newest rows of stage 1's replay to take along; None for as many as fit, 0 for none."""
    carry_critic: bool = True
    """Take the critics and their targets along. A fresh critic wrecks the clone within two
    thousand steps."""
    carry_alpha: bool = True
    """Take SAC's temperature along."""
    freeze_encoder: bool | None = None
    """Leave the encoder of a cloned transformer that reads images as it is, and keep its embeddings
    in the replay. None does so with an encoder of its own, and lets one that it shares with the
    critics learn on by their loss; True freezes that one too, for all who read by it, and no image
    is kept: cheaper. False freezes none."""
    guard_fraction: PartOfOne = 0.5
    """Go back to the best snapshot when the score (success where the environment reports it, else
    the return), above random, falls below this share of the best; 0 never does."""
    guard_checks: Count = 2
    """Checks in a row below it before going back."""


def must_roll_back(
    config: OnlineConfig, scores: Sequence[float], best: float, random: float
) -> bool:
    """Whether the last `guard_checks` mean scores all lie below the guarded share of the best.

    Pure function; scores, best and the random policy's are in one unit, returns or success.
    """
    if not config.guard_fraction or len(scores) < config.guard_checks or best <= random:
        return False
    floor = random + config.guard_fraction * (best - random)
    return all(value < floor for value in scores[-config.guard_checks :])
