"""The explicit memory of an actor: a carry is a value that goes in and comes out."""

from typing import Protocol

import torch
from torch import Tensor

Carry = dict[str, Tensor]
"""Name -> (N, *), one row for each environment; empty for a policy without memory."""


class Backbone(Protocol):
    """Turns a window of frames into features of its last steps."""

    context_length: int
    feature_size: int

    def __call__(self, frames: Tensor, valid: Tensor, last: int = 1) -> Tensor:
        """Frames (B, T, K), valid (B, T) bool -> features of the `last` steps (B, last, F)."""
        ...

    def initial_carry(self, num_envs: int) -> Carry:
        """The carry at an episode's start."""
        ...

    def step(self, raw: Tensor, carry: Carry) -> tuple[Tensor, Tensor, Carry]:
        """Take in one raw frame (N, K): the window (N, T, K), its validity (N, T), a new carry."""
        ...


def reset_carry(carry: Carry, initial: Carry, started: Tensor) -> Carry:
    """Where `started` (N,) bool, the carry of an episode's start; elsewhere the carry as it is."""
    return {
        name: torch.where(started.view(-1, *[1] * (value.dim() - 1)), initial[name], value)
        for name, value in carry.items()
    }


def empty_window(num_envs: int, length: int, frame_size: int, like: Tensor) -> Carry:
    """A carry that has seen nothing: {"window": (N, C, K) zeros, "valid": (N, C) False}."""
    return {
        "window": like.new_zeros(num_envs, length, frame_size),
        "valid": torch.zeros(num_envs, length, dtype=torch.bool, device=like.device),
    }


def push_frame(raw: Tensor, carry: Carry) -> Carry:
    """Slide the window by one raw frame (N, K); the oldest falls out on the left."""
    present = torch.ones_like(carry["valid"][:, :1])
    return {
        "window": torch.cat([carry["window"][:, 1:], raw[:, None]], 1),
        "valid": torch.cat([carry["valid"][:, 1:], present], 1),
    }
