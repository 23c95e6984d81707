"""Policies that stay as they are: what stands where a policy of this package has weights."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from slipstream.errors import SlipstreamError
from slipstream.networks.heads import Deterministic
from slipstream.networks.linear import Linear
from slipstream.networks.memory import Carry, Prepare
from slipstream.spec import EnvSpec

Call = Callable[[np.ndarray], np.ndarray]
"""Observations (B, n) float32 -> actions (B, A) in the environment's own units."""


class FromEnv(nn.Module):
    """Takes actions from the environment's own units to [-1, 1], clipped."""

    centre: Tensor
    reach: Tensor

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
        self.register_buffer("centre", (low + high) / 2, persistent=False)
        # A component that cannot move stays in the middle, as that of its low and high is.
        reach = torch.where(high > low, (high - low) / 2, 1)
        self.register_buffer("reach", reach, persistent=False)

    def forward(self, action: Tensor) -> Tensor:
        """Action (..., A) -> (..., A)."""
        return ((action - self.centre) / self.reach).clamp(-1, 1)


class CalledPolicy(nn.Module):
    """A backbone without weights whose features are the actions that a function gives.

    Args:
        call: the function; it has no memory.
        about: its name, for error messages.
        spec: of the environment.
    """

    context_length = 1
    loss_steps = 1

    def __init__(self, call: Call, about: str, spec: EnvSpec) -> None:
        super().__init__()
        self.call, self.about = call, about
        self.feature_size = spec.action_dim
        self.scale = FromEnv(spec)

    def forward(self, frames: Tensor, valid: Tensor, last: int = 1) -> Tensor:
        """Frames (B, T, K), valid (B, T) -> actions in [-1, 1] at the `last` steps (B, last, A)."""
        frames = frames[:, frames.shape[1] - last :]
        return self._actions(frames.reshape(-1, frames.shape[-1])).view(*frames.shape[:2], -1)

    def memory_parameters(self) -> Iterable[nn.Parameter]:
        """None."""
        return []

    def initial_carry(self, num_envs: int) -> Carry:
        """Nothing."""
        return {}

    def step(self, raw: Tensor, carry: Carry, prepare: Prepare) -> tuple[Tensor, Carry]:
        """Raw frame (N, K) -> actions (N, A)."""
        return self._actions(prepare(raw)), carry

    def _actions(self, frames: Tensor) -> Tensor:
        """Frames (B, K) -> (B, A)."""
        action = self.call(frames.cpu().numpy())
        expected = (len(frames), self.feature_size)
        if action.shape != expected:
            raise SlipstreamError(
                f"{self.about} returned {action.shape[1:]} for an observation of shape "
                f"{tuple(frames.shape[1:])}, but the environment takes actions of shape "
                f"{expected[1:]}; return one array of that shape"
            )
        if not np.isfinite(action).all():
            row, component = np.argwhere(~np.isfinite(action))[0]
            raise SlipstreamError(
                f"{self.about} returned {action[row, component]} in component {component} of its "
                "action; it must be finite"
            )
        scaled = torch.as_tensor(np.asarray(action, np.float32)).to(frames.device)
        return self.scale(scaled)


class BoxHead(nn.Module):
    """Features (..., F) -> the mean of a Gaussian in the environment's units, clipped (PPO)."""

    def __init__(self, feature_size: int, spec: EnvSpec) -> None:
        super().__init__()
        self.output = Linear(feature_size, spec.action_dim)
        self.scale = FromEnv(spec)

    def forward(self, features: Tensor) -> Deterministic:
        """Features (..., F) -> action (..., A)."""
        return Deterministic(self.scale(self.output(features)))


class ActionHead(nn.Module):
    """Features that are actions already (..., A) -> Deterministic."""

    def forward(self, features: Tensor) -> Deterministic:
        """Features (..., A) -> the same."""
        return Deterministic(features)


class ModeHead(nn.Module):
    """Whatever another head gives, without its spread: what TD3 asks of a policy."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Deterministic:
        """Features (..., F) -> action (..., A)."""
        return Deterministic(self.head(features).mode)


@dataclass(frozen=True)
class Spread:
    """A deterministic policy with a spread of its own: what SAC asks of a policy.

    Samples are the action plus Gaussian noise, clipped. The entropy counts as that of the noise,
    the same in every state; a policy clipped to its bounds would have none.

    Attributes:
        mode: the action (..., A) in [-1, 1].
        std: standard deviation of the noise.
    """

    mode: Tensor
    std: float

    @property
    def mean(self) -> Tensor:
        """The action before tanh (..., A)."""
        return torch.atanh(self.mode.clamp(-0.999, 0.999))

    @property
    def log_std(self) -> Tensor:
        """The log-std (..., A) with which a squashed Gaussian of this mode would spread alike.

        tanh narrows the spread by its slope, 1 - mode^2, so it begins wider where the action is
        near its bound. At most 1 before tanh: wider ones spread beyond the other bound.
        """
        slope = (1 - self.mode.square()).clamp(min=self.std)
        return math.log(self.std) - slope.log()

    def sample(self) -> Tensor:
        """Actions (..., A) in [-1, 1]."""
        return (self.mode + self.std * torch.randn_like(self.mode)).clamp(-1, 1)

    def rsample_with_log_prob(self) -> tuple[Tensor, Tensor]:
        """Actions (..., A), and minus the entropy for each (...)."""
        entropy = self.mode.shape[-1] * gaussian_entropy(self.std)
        return self.sample(), torch.full_like(self.mode[..., 0], -entropy)


class SpreadHead(nn.Module):
    """Whatever another head gives, with a fixed spread around its mode."""

    def __init__(self, head: nn.Module, std: float) -> None:
        super().__init__()
        self.head = head
        self.std = std

    def forward(self, features: Tensor) -> Spread:
        """Features (..., F) -> the policy (..., A)."""
        return Spread(self.head(features).mode, self.std)


def gaussian_entropy(std: float) -> float:
    """Differential entropy of one component of a Gaussian, in nats."""
    return 0.5 * math.log(2 * math.pi * math.e) + math.log(std)


def std_of_entropy(entropy: float) -> float:
    """The inverse of `gaussian_entropy`."""
    return math.exp(entropy - 0.5 * math.log(2 * math.pi * math.e))
