"""The explicit memory of an actor: a carry is a value that goes in and comes out."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

Carry = dict[str, Tensor]
"""Name -> (N, *), one row for each environment; empty for a policy without memory."""

Prepare = Callable[[Tensor], Tensor]
"""Raw frames (..., K) -> what a network reads (..., K); the normalization, where there is one."""


class Backbone(Protocol):
    """Turns frames into features.

    Attributes:
        context_length: steps of a training window that it reads to give its `loss_steps` features.
        loss_steps: trailing steps of that window which count in the loss. 1 for a network that
            looks at a window of fixed length; a recurrent one learns from a whole sequence.
        feature_size: F.
    """

    context_length: int
    loss_steps: int
    feature_size: int

    def __call__(self, frames: Tensor, valid: Tensor, last: int = 1) -> Tensor:
        """Frames (B, T, K), valid (B, T) bool -> features of the `last` steps (B, last, F)."""
        ...

    def parameters(self) -> Iterable[nn.Parameter]:
        """All of its parameters."""
        ...

    def memory_parameters(self) -> Iterable[nn.Parameter]:
        """Its parameters where it learns to remember, else none."""
        ...

    def initial_carry(self, num_envs: int) -> Carry:
        """The carry at an episode's start."""
        ...

    def step(self, raw: Tensor, carry: Carry, prepare: Prepare) -> tuple[Tensor, Carry]:
        """Take in one raw frame (N, K): its features (N, F) and a new carry."""
        ...


def reset_carry(carry: Carry, initial: Carry, started: Tensor) -> Carry:
    """Where `started` (N,) bool, the carry of an episode's start; elsewhere the carry as it is."""
    return {
        name: torch.where(started.view(-1, *[1] * (value.dim() - 1)), initial[name], value)
        for name, value in carry.items()
    }


def windows_before(frames: Tensor, valid: Tensor, length: int, last: int) -> tuple[Tensor, Tensor]:
    """The window of `length` steps that ends at each of the last steps.

    So a network of fixed context sees at every step what it saw there when it acted, however long
    the sequence around it is.

    Args:
        frames: (B, T, K).
        valid: (B, T) bool.
        length: C; a sequence too short for it is padded on the left by its first row.
        last: L.

    Returns:
        (B * L, C, K) and (B * L, C), or views of the input (B, min(C, T), K) where L is 1. The
        step that a window ends with counts as valid, so that no window is empty.
    """
    if last == 1:
        return frames[:, -length:], valid[:, -length:]
    missing = length + last - 1 - frames.shape[1]
    if missing > 0:
        frames = torch.cat([frames[:, :1].expand(-1, missing, -1), frames], 1)
        valid = torch.cat([torch.zeros_like(valid[:, :1]).expand(-1, missing), valid], 1)
    needed = length + last - 1
    # (B, L, K, C) -> (B, L, C, K)
    unfolded = frames[:, -needed:].unfold(1, length, 1).transpose(2, 3)
    valid = valid[:, -needed:].unfold(1, length, 1).reshape(-1, length).clone()
    valid[:, -1] = True
    return unfolded.reshape(-1, length, frames.shape[-1]), valid


def empty_window(num_envs: int, length: int, frame_size: int, like: Tensor) -> Carry:
    """A carry that has seen nothing: {"window": (N, C, K) zeros, "valid": (N, C) False}."""
    return {
        "window": like.new_zeros(num_envs, length, frame_size),
        "valid": torch.zeros(num_envs, length, dtype=torch.bool, device=like.device),
    }


def push_frame(raw: Tensor, carry: Carry) -> Carry:
    """Slide the window by one raw frame (N, K); the oldest falls out on the left.

    An episode's first frame also fills the padding before it, as it does in the replay's windows.
    """
    empty = ~carry["valid"][:, -1:]  # the newest row is only ever missing before the first
    before = torch.where(empty[..., None], raw[:, None], carry["window"][:, 1:])
    return {
        "window": torch.cat([before, raw[:, None]], 1),
        "valid": torch.cat([carry["valid"][:, 1:], torch.ones_like(empty)], 1),
    }
