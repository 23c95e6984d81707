"""The batch of replay windows that every learner is handed."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

Obs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """B windows of T consecutive steps (and the observation that follows the last one).

    Windows at an episode's start are padded on the left, so that `obs` and `next_obs` are exactly
    what the actor saw at t and at t + 1. Padded rows repeat the oldest row of the window and have
    `valid` False. The last step of a window is always a real transition. A learner without memory
    takes T = 1.

    Attributes:
        window: observation key -> (B, T + 1, *), gathered once; `obs` and `next_obs` are views.
        action: (B, T, A) in [-1, 1].
        reward: (B, T).
        terminated: (B, T), 1.0 where the episode ended in a terminal state. Truncation never
            appears here: a time limit is no reason to stop bootstrapping.
        valid: (B, T + 1) bool, False for padding.
        mask: (B, T) float, what each step weighs in the loss, which divides by their sum; 0.0 where
            it does not count.
        loss_steps: the number of trailing steps that may count; `mask` is 0 before them.
    """

    window: Obs
    action: Tensor
    reward: Tensor
    terminated: Tensor
    valid: Tensor
    mask: Tensor
    loss_steps: int = 1

    @property
    def obs(self) -> dict[str, Tensor]:
        """Observations at t: key -> (B, T, *)."""
        return {key: value[:, :-1] for key, value in self.window.items()}

    @property
    def next_obs(self) -> dict[str, Tensor]:
        """Observations at t + 1: key -> (B, T, *)."""
        return {key: value[:, 1:] for key, value in self.window.items()}

    @property
    def obs_valid(self) -> Tensor:
        """(B, T) bool: which rows of `obs` exist."""
        return self.valid[:, :-1]

    @property
    def next_valid(self) -> Tensor:
        """(B, T) bool: which rows of `next_obs` exist."""
        return self.valid[:, 1:]
