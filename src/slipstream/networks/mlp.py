"""Multi-layer perceptrons: alone, in an ensemble, and as a backbone without memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from slipstream.errors import SlipstreamError
from slipstream.networks.linear import EnsembleLinear, Linear
from slipstream.networks.memory import Carry


@dataclass(frozen=True)
class MLPConfig:
    """A network of fully connected layers."""

    hidden: tuple[int, ...] = (128, 128)
    """Width of each hidden layer."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for widths that make no network."""
        check_hidden("mlp.hidden", self.hidden)


def check_hidden(name: str, hidden: Sequence[int]) -> None:
    """Raise SlipstreamError unless there are hidden layers, each of at least one unit."""
    if not hidden or min(hidden) < 1:
        raise SlipstreamError(f"{name} is {tuple(hidden)}; give one width of at least 1 a layer")


class MLPBackbone(nn.Module):
    """Features of the present frame alone. ReLU after each layer, as in TD3 and SAC."""

    context_length = 1

    def __init__(self, config: MLPConfig, input_size: int) -> None:
        super().__init__()
        sizes = (input_size, *config.hidden)
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
        self.feature_size = sizes[-1]

    def forward(self, frames: Tensor, valid: Tensor, last: int = 1) -> Tensor:
        """Frames (B, T, K), valid (B, T) -> features of the `last` steps (B, last, F)."""
        x = frames if frames.shape[1] == last else frames[:, -last:]
        for layer in self.layers:
            x = torch.relu_(layer(x))
        return x

    def initial_carry(self, num_envs: int) -> Carry:
        """No memory: an empty carry."""
        return {}

    def step(self, raw: Tensor, carry: Carry) -> tuple[Tensor, Tensor, Carry]:
        """Raw frame (N, K) -> the window of one frame (N, 1, K), its validity, and no carry."""
        return raw[:, None], torch.ones(raw.shape[0], 1, dtype=torch.bool, device=raw.device), carry


class EnsembleMLP(nn.Module):
    """E independent perceptrons with one scalar output each, computed together.

    `layer_norm` puts a LayerNorm without parameters before each ReLU, which kept the critics of
    TD3 from over-estimating (see the method page of the documentation).
    """

    def __init__(
        self, n_members: int, input_size: int, hidden: Sequence[int], layer_norm: bool
    ) -> None:
        super().__init__()
        sizes = (input_size, *hidden, 1)
        self.layers = nn.ModuleList(EnsembleLinear(n_members, a, b) for a, b in pairwise(sizes))
        self.n_members = n_members
        self.layer_norm = layer_norm

    def forward(self, x: Tensor, members: int | None = None) -> Tensor:
        """X (..., K) -> (E, ...); `members` evaluates only the first few."""
        n_members = self.n_members if members is None else members
        y = x.reshape(-1, x.shape[-1])  # the first layer reads one input for all members
        for i, layer in enumerate(self.layers):
            y = layer(y, members)
            if i < len(self.layers) - 1:
                if self.layer_norm:
                    y = nn.functional.layer_norm(y, y.shape[-1:])
                y = torch.relu_(y)
        return y.view(n_members, *x.shape[:-1])
