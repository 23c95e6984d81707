"""Target networks and masked losses: what TD3 and SAC share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slipstream.batch import Batch


@torch.no_grad()
def polyak(target: Sequence[Tensor], source: Sequence[Tensor], tau: float) -> None:
    """Move `target` to (1 - tau) target + tau source: `tau` weighs the new parameters."""
    torch._foreach_lerp_(list(target), list(source), tau)  # pyright: ignore


def hard_copy(target: nn.Module, source: nn.Module) -> None:
    """Make the target equal to the source and keep it out of every gradient."""
    target.load_state_dict(source.state_dict())
    target.requires_grad_(False)


def td_loss(q: Tensor, target_q: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared TD error, summed over the ensemble.

    q (E, B, L), target_q (B, L), mask (B, L) with 1.0 where a step counts, None if all do.
    """
    target_q = target_q.expand_as(q)
    if mask is None:
        return nn.functional.mse_loss(q, target_q, reduction="sum") / q[0].numel()
    return ((q - target_q).square() * mask).sum() / mask.sum()


def bootstrapped(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """The TD target reward + gamma (1 - terminated) next_value, each (B, L).

    Only a terminal state ends the sum. In two kernels; in plain arithmetic it would be eight.
    """
    going_on = torch.addcmul(next_value, terminated, next_value, value=-1)
    return torch.add(reward, going_on, alpha=gamma)


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of x (B, L) over the steps that count, mask (B, L), None if all do."""
    return x.mean() if mask is None else (x * mask).sum() / mask.sum()


def loss_columns(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Action (B, L, A), reward, terminated and mask (B, L) of the steps that may count.

    The mask is None for a loss on the last step alone: that step is always real.
    """
    n = batch.loss_steps
    if n == batch.action.shape[1]:
        columns = (batch.action, batch.reward, batch.terminated)
    else:
        columns = (batch.action[:, -n:], batch.reward[:, -n:], batch.terminated[:, -n:])
    return (*columns, None if n == 1 else batch.mask[:, -n:])
