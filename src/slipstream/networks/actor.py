"""A policy: an input, a backbone and a head; its memory is a value handed in and out."""

import copy
from itertools import chain

import torch
from torch import Tensor, nn

from slipstream.batch import Obs
from slipstream.networks.heads import Deterministic, SquashedGaussian
from slipstream.networks.inputs import Inputs
from slipstream.networks.memory import Backbone, Carry


class Actor(nn.Module):
    """A policy over windows of observations, and step by step.

    Acting equals training: `step` over an episode gives the same outputs as `forward` over each
    step's window.
    """

    def __init__(self, inputs: Inputs, backbone: Backbone, head: nn.Module) -> None:
        """Put the parts together; `inputs.keys` are the observation keys that it reads."""
        super().__init__()
        self.inputs = inputs
        self.backbone = backbone
        self.head = head
        self.memory_borrowed = False

    @property
    def context_length(self) -> int:
        """Steps of a training window that it reads, the present one included."""
        return self.backbone.context_length

    @property
    def loss_steps(self) -> int:
        """Trailing steps of a training window that count in its loss."""
        return self.backbone.loss_steps

    @property
    def device(self) -> torch.device:
        """Where the weights are (or the buffers, of a policy without weights)."""
        return next(chain(self.parameters(), self.buffers())).device

    def own_parameters(self) -> list[nn.Parameter]:
        """What its own learning may move: all parameters but those that it borrows."""
        encoders = self.inputs.encoders.parameters() if self.inputs.borrowed else ()
        memory = self.backbone.parameters() if self.memory_borrowed else ()
        others = {id(parameter) for parameter in chain(encoders, memory)}
        return [parameter for parameter in self.parameters() if id(parameter) not in others]

    def borrow_memory(self, memory: Backbone) -> None:
        """Remember by the memory of another network from now on, of the same kind and inputs.

        Its features come out detached: what is learnt here moves it no more.

        Raises:
            ValueError: its features are of another size.
        """
        if memory.feature_size != self.backbone.feature_size:
            raise ValueError(
                f"features of {memory.feature_size} cannot stand for {self.backbone.feature_size}"
            )
        self.backbone = memory
        self.memory_borrowed = True

    def part(self) -> None:
        """End all borrowing: encoders and memory stay as they are now, whatever becomes of them."""
        if self.inputs.borrowed:
            self.inputs.part()
        if self.memory_borrowed:
            self.backbone = copy.deepcopy(self.backbone)
            self.memory_borrowed = False

    def memory_parameters(self) -> list[nn.Parameter]:
        """The parameters of its memory; none for an MLP."""
        return list(self.backbone.memory_parameters())

    def forward(self, obs: Obs, valid: Tensor, last: int = 1) -> Deterministic | SquashedGaussian:
        """Obs key -> (B, T, *), valid (B, T) bool -> the policy at the last steps, (B, last, A)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.memory_borrowed):
            frames = self.inputs(self.inputs.frames(obs))
            features = self.backbone(frames, valid, last)
        return self.head(features)

    def initial_carry(self, num_envs: int) -> Carry:
        """The memory at an episode's start, for `num_envs` environments."""
        return self.backbone.initial_carry(num_envs)

    @torch.no_grad()
    def step(self, obs: Obs, carry: Carry) -> tuple[Deterministic | SquashedGaussian, Carry]:
        """Obs key -> (N, *) -> the policy at this step (N, A), and the memory for the next."""
        features, carry = self.backbone.step(self.inputs.frames(obs), carry, self.inputs)
        return self.head(features), carry
