"""Twin action values, on the last observation or with a memory of their own."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from slipstream.batch import Obs
from slipstream.networks.inputs import Inputs
from slipstream.networks.memory import Backbone
from slipstream.networks.mlp import (
    Activation,
    EnsembleMLP,
)
from slipstream.settings import Count, Settings, Widths


@dataclass(frozen=True)
class CriticConfig(Settings, section="networks.critic"):
    """Twin critics."""

    memory: Literal["none", "transformer", "lstm", "gru"] = "none"
    """What precedes the critics' MLP: nothing, or a network with memory, with a policy's sizes and
    weights of its own."""
    frame_stack: Count | None = None
    """With memory=none: observations side by side, the present one included. None is 1, and 3
    where something is hidden from the critics."""
    hidden: Widths = (128, 128)
    """Width of each hidden layer."""
    activation: Activation = "relu"
    """What follows each hidden layer."""
    layer_norm: bool | None = None
    """LayerNorm in the hidden layers; None takes the algorithm's default (TD3 on, SAC off)."""
    n_critics: Count = 2
    """Size of the ensemble whose minimum is the target."""


class Critic(nn.Module):
    """An ensemble of action values: obs (B, T, *), action (B, L, A) -> (E, B, L).

    The members share the features of their memory. An actor may read them too, or borrow their
    image encoder (`Inputs.borrow`), but only detached: its gradients would interfere (arXiv
    2510.13367).
    """

    def __init__(
        self,
        inputs: Inputs,
        memory: Backbone,
        action_dim: int,
        config: CriticConfig,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.memory = memory
        self.context_length = memory.context_length
        self.loss_steps = memory.loss_steps
        self.ensemble = EnsembleMLP(
            config.n_critics,
            memory.feature_size + action_dim,
            config.hidden,
            layer_norm,
            config.activation,
        )

    def memory_parameters(self) -> list[nn.Parameter]:
        """The parameters of its memory; none where it looks at one observation or a stack."""
        return list(self.memory.memory_parameters())

    def forward(self, obs: Obs, valid: Tensor, action: Tensor, first: bool = False) -> Tensor:
        """Values of `action` (B, L, A) at the last L steps of obs (B, T, *): (E, B, L).

        With `first`, (1, B, L) of the ensemble's first member alone.
        """
        frames = self.inputs(self.inputs.frames(obs))
        features = self.memory(frames, valid, action.shape[1])
        return self.ensemble(torch.cat([features, action], -1), first)
