"""Multi-layer perceptrons: alone, in an ensemble, and as a backbone without memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from slipstream.networks.linear import EnsembleLinear, Linear
from slipstream.networks.memory import Carry, Prepare, empty_window, push_frame, windows_before
from slipstream.settings import Count, Settings, Widths

Activation = Literal["relu", "tanh", "elu", "silu", "gelu", "leaky_relu"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "elu": nn.functional.elu,
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "leaky_relu": nn.functional.leaky_relu,
}
"""Name -> function of a layer's output, which it may overwrite."""


@dataclass(frozen=True)
class MLPConfig(Settings, section="networks.mlp"):
    """A network of fully connected layers."""

    hidden: Widths = (128, 128)
    """Width of each hidden layer."""
    activation: Activation = "relu"
    """What follows each hidden layer."""
    frame_stack: Count | None = None
    """Observations side by side, the present one included: a short memory without recurrence. None
    is 1, and 3 where something is hidden from the network."""


class FrameStack(nn.Module):
    """The last S frames side by side, nothing learnt: (B, T, K) -> (B, last, S * K).

    Before an episode's start stands its first frame.
    """

    loss_steps = 1

    def __init__(self, frame_stack: int, frame_size: int) -> None:
        super().__init__()
        self.context_length = frame_stack
        self.frame_size = frame_size
        self.feature_size = frame_stack * frame_size
        self.register_buffer("like", torch.zeros(()), persistent=False)  # knows the device

    def forward(self, frames: Tensor, valid: Tensor, last: int = 1) -> Tensor:
        """Frames (B, T, K), valid (B, T) -> the stacks at the `last` steps (B, last, S * K)."""
        if self.context_length == 1:
            return frames if frames.shape[1] == last else frames[:, -last:]
        windows, _ = windows_before(frames, valid, self.context_length, last)
        missing = self.context_length - windows.shape[1]
        if missing > 0:
            windows = torch.cat([windows[:, :1].expand(-1, missing, -1), windows], 1)
        return windows.reshape(frames.shape[0], last, self.feature_size)

    def memory_parameters(self) -> list[nn.Parameter]:
        """None: it learns nothing about time."""
        return []

    def initial_carry(self, num_envs: int) -> Carry:
        """An empty window; nothing for a stack of one."""
        if self.context_length == 1:
            return {}
        return empty_window(num_envs, self.context_length, self.frame_size, self.get_buffer("like"))

    def step(self, raw: Tensor, carry: Carry, prepare: Prepare) -> tuple[Tensor, Carry]:
        """Raw frame (N, K) -> the stack (N, S * K) and the window."""
        if self.context_length == 1:
            return prepare(raw), carry
        carry = push_frame(raw, carry)
        return prepare(carry["window"]).flatten(1), carry


class MLPBackbone(nn.Module):
    """Features of the present frame, or of a stack. By default ReLU layers, as in TD3 and SAC."""

    loss_steps = 1

    def __init__(self, config: MLPConfig, input_size: int) -> None:
        super().__init__()
        self.stack = FrameStack(config.frame_stack or 1, input_size)
        self.context_length = self.stack.context_length
        sizes = (self.stack.feature_size, *config.hidden)
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
        self.feature_size = sizes[-1]
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, frames: Tensor, valid: Tensor, last: int = 1) -> Tensor:
        """Frames (B, T, K), valid (B, T) -> features of the `last` steps (B, last, F)."""
        return self._layers(self.stack(frames, valid, last))

    def _layers(self, x: Tensor) -> Tensor:
        # In rows: a product over more dimensions comes back as a view, and to overwrite a view
        # costs autograd several copies.
        y = x.reshape(-1, x.shape[-1])
        for layer in self.layers:
            y = self.activation(layer(y))
        return y.view(*x.shape[:-1], -1)

    def memory_parameters(self) -> list[nn.Parameter]:
        """None: it learns nothing about time."""
        return []

    def initial_carry(self, num_envs: int) -> Carry:
        """The window of the stack; nothing where there is no stack."""
        return self.stack.initial_carry(num_envs)

    def step(self, raw: Tensor, carry: Carry, prepare: Prepare) -> tuple[Tensor, Carry]:
        """Raw frame (N, K) -> features (N, F) and the window of the stack."""
        stacked, carry = self.stack.step(raw, carry, prepare)
        return self._layers(stacked), carry


class EnsembleMLP(nn.Module):
    """E independent perceptrons with one scalar output each, computed together.

    `layer_norm` puts a LayerNorm without parameters before each activation, which kept the critics
    of TD3 from over-estimating (see the method page of the documentation).
    """

    def __init__(
        self,
        n_members: int,
        input_size: int,
        hidden: Sequence[int],
        layer_norm: bool,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        sizes = (input_size, *hidden, 1)
        self.layers = nn.ModuleList(EnsembleLinear(n_members, a, b) for a, b in pairwise(sizes))
        self.n_members = n_members
        self.layer_norm = layer_norm
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, first: bool = False) -> Tensor:
        """X (..., K) -> (E, ...), or (1, ...) of the first member alone."""
        y = x.reshape(-1, x.shape[-1])  # the first layer reads one input for all members
        for i, layer in enumerate(self.layers):
            y = cast("EnsembleLinear", layer).first(y) if first else layer(y)
            if i < len(self.layers) - 1:
                if self.layer_norm:
                    y = nn.functional.layer_norm(y, y.shape[-1:])
                y = self.activation(y)
        return y.view(1 if first else self.n_members, *x.shape[:-1])
