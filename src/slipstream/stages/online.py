"""Stage 2: what the transformer takes over from stage 1, and what keeps it from falling apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from slipstream.errors import SlipstreamError


@dataclass(frozen=True)
class OnlineConfig:
    """Stage 2, and what it takes over from stage 1."""

    replay_capacity: int = 20_000
    """Rows of replay in stage 2."""
    utd_ratio: float | None = None
    """Updates for each env step; None for as many as in stage 1."""
    eval_every: int | None = None
    """Env steps between two evaluations; None for eval.every."""
    carry_rows: int | None = None
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
    guard_fraction: float = 0.5
    """Go back to the best snapshot when the score (success where the environment reports it, else
    the return), above random, falls below this share of the best; 0 never does."""
    guard_checks: int = 2
    """Checks in a row below it before going back."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for a setting that cannot work."""
        if self.replay_capacity < 2:
            raise SlipstreamError(
                f"online.replay_capacity is {self.replay_capacity}; it must be at least 2"
            )
        if self.carry_rows is not None and self.carry_rows < 0:
            raise SlipstreamError(
                f"online.carry_rows is {self.carry_rows}; it must not be negative"
            )
        if self.eval_every is not None and self.eval_every < 1:
            raise SlipstreamError(f"online.eval_every is {self.eval_every}; it must be at least 1")
        if self.utd_ratio is not None and not self.utd_ratio >= 0:
            raise SlipstreamError(f"online.utd_ratio is {self.utd_ratio}; it must not be negative")
        if not 0 <= self.guard_fraction < 1:
            raise SlipstreamError(
                f"online.guard_fraction is {self.guard_fraction}; it must be in [0, 1)"
            )
        if self.guard_checks < 1:
            raise SlipstreamError(
                f"online.guard_checks is {self.guard_checks}; it must be at least 1"
            )


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
