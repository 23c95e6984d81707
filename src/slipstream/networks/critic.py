"""Twin action values, on the last observation or with a memory of their own."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from slipstream.batch import Obs
from slipstream.errors import SlipstreamError
from slipstream.networks.inputs import StateInput
from slipstream.networks.memory import Backbone
from slipstream.networks.mlp import EnsembleMLP, check_hidden


@dataclass(frozen=True)
class CriticConfig:
    """Twin critics."""

    memory: Literal["none", "transformer"] = "none"
    """What precedes the critics' MLP: nothing (the last observation), or a transformer with the
    policy's sizes and weights of its own."""
    hidden: tuple[int, ...] = (128, 128)
    """Width of each hidden layer."""
    layer_norm: bool | None = None
    """LayerNorm in the hidden layers; None takes the algorithm's default (TD3 on, SAC off)."""
    n_critics: int = 2
    """Size of the ensemble whose minimum is the target."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for sizes that make no critics."""
        check_hidden("critic.hidden", self.hidden)
        if self.n_critics < 1:
            raise SlipstreamError(f"critic.n_critics is {self.n_critics}; it must be at least 1")


class Critic(nn.Module):
    """An ensemble of action values: obs (B, T, *), action (B, L, A) -> (E, B, L).

    With a memory, the members share its features; it is never shared with an actor, whose
    gradients would interfere (arXiv 2510.13367).
    """

    def __init__(
        self,
        inputs: StateInput,
        memory: Backbone | None,
        action_dim: int,
        config: CriticConfig,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.memory = memory
        self.context_length = 1 if memory is None else memory.context_length
        feature_size = inputs.size if memory is None else memory.feature_size
        self.ensemble = EnsembleMLP(
            config.n_critics, feature_size + action_dim, config.hidden, layer_norm
        )

    def forward(
        self, obs: Obs, valid: Tensor, action: Tensor, members: int | None = None
    ) -> Tensor:
        """Values of `action` (B, L, A) at the last L steps of obs (B, T, *): (E, B, L).

        `members` evaluates only the first few of the ensemble.
        """
        last = action.shape[1]
        frames = self.inputs.frames(obs)
        if self.memory is None:
            features = self.inputs(frames if frames.shape[1] == last else frames[:, -last:])
        else:
            features = self.memory(self.inputs(frames), valid, last)
        return self.ensemble(torch.cat([features, action], -1), members)
