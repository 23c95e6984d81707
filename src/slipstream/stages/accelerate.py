"""Stage 1: the accelerator interacts and learns while the transformer is cloned from it."""

from dataclasses import dataclass

from slipstream.errors import SlipstreamError


@dataclass(frozen=True)
class AccelerateConfig:
    """Stage 1."""

    replay_capacity: int = 100_000
    """Rows of replay in stage 1."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for a replay without rows."""
        if self.replay_capacity < 2:
            raise SlipstreamError(
                f"accelerate.replay_capacity is {self.replay_capacity}; it must be at least 2"
            )
