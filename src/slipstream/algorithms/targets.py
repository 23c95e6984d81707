"""Target networks and masked losses: what TD3 and SAC share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slipstream.batch import Batch


@torch.no_grad()
def polyak(target: Sequence[Tensor], source: Sequence[Tensor], tau: float) -> None:
    """target <- (1 - tau) target + tau source: `tau` weighs the new parameters."""
    torch._foreach_lerp_(list(target), list(source), tau)


def hard_copy(target: nn.Module, source: nn.Module) -> None:
    """Make the target equal to the source and keep it out of every gradient."""
    target.load_state_dict(source.state_dict())
    target.requires_grad_(False)


def td_loss(q: Tensor, target_q: Tensor, mask: Tensor) -> Tensor:
    """Mean squared TD error, summed over the ensemble.

    q (E, B, L), target_q (B, L), mask (B, L) with 1.0 where a step counts.
    """
    error = (q - target_q).square() * mask
    return error.sum() / mask.sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (B, L) over the steps that count, mask (B, L)."""
    return (x * mask).sum() / mask.sum()


def loss_columns(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Action (B, L, A), reward, terminated and mask (B, L) of the steps that may count."""
    n = batch.loss_steps
    return (
        batch.action[:, -n:],
        batch.reward[:, -n:],
        batch.terminated[:, -n:],
        batch.mask[:, -n:],
    )
