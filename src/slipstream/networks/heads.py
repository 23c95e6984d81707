"""From features to actions: deterministic, and squashed Gaussian."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slipstream.networks.linear import Linear

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


@dataclass(frozen=True)
class Deterministic:
    """One action for each state: mode (..., A) in [-1, 1]."""

    mode: Tensor


@dataclass(frozen=True)
class SquashedGaussian:
    """tanh of a Gaussian (Haarnoja et al. 2018b, appendix C): mean and log_std (..., A)."""

    mean: Tensor
    log_std: Tensor

    @property
    def mode(self) -> Tensor:
        """tanh(mean) (..., A), the action taken in evaluation."""
        return torch.tanh(self.mean)

    def rsample_with_log_prob(self) -> tuple[Tensor, Tensor]:
        """Reparametrised actions (..., A) in (-1, 1) and their log-probabilities (...)."""
        noise = torch.randn_like(self.mean)
        u = torch.addcmul(self.mean, self.log_std.exp(), noise)
        # -log N(u) + log(1 - tanh(u)^2), constants left out, with the second term in the form that
        # does not underflow for large |u|: 2 (log 2 - u - softplus(-2 u)), and
        # softplus(-2 u) = -2 softplus(u, beta=-2). `add` with alpha is one kernel, Python
        # arithmetic several.
        slope = torch.add(u, nn.functional.softplus(u, beta=-2), alpha=-2)
        surprise = torch.addcmul(torch.add(self.log_std, slope, alpha=-2), noise, noise, value=0.5)
        constant = u.shape[-1] * (0.5 * math.log(2 * math.pi) + 2 * math.log(2))
        return torch.tanh(u), -constant - surprise.sum(-1)

    def sample(self) -> Tensor:
        """Actions (..., A) in (-1, 1)."""
        return torch.tanh(self.mean + self.log_std.exp() * torch.randn_like(self.mean))


class DeterministicHead(nn.Module):
    """Features (..., F) -> Deterministic, the policy of TD3."""

    def __init__(self, feature_size: int, action_dim: int) -> None:
        super().__init__()
        self.output = Linear(feature_size, action_dim)

    def forward(self, features: Tensor) -> Deterministic:
        """Features (..., F) -> action (..., A)."""
        return Deterministic(torch.tanh(self.output(features)))


class SquashedGaussianHead(nn.Module):
    """Features (..., F) -> SquashedGaussian, the policy of SAC."""

    log_std_min = LOG_STD_MIN

    def __init__(self, feature_size: int, action_dim: int) -> None:
        super().__init__()
        self.output = Linear(feature_size, 2 * action_dim)

    def forward(self, features: Tensor) -> SquashedGaussian:
        """Features (..., F) -> mean and log_std (..., A)."""
        mean, log_std = self.output(features).chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(self.log_std_min, LOG_STD_MAX))


class WideGaussianHead(SquashedGaussianHead):
    """The same with the bounds of SAC's first implementation (and of Stable-Baselines3).

    For weights that were trained with them: where the log-std is below the narrower bound, its
    gradient would be cut off.
    """

    log_std_min = -20.0


HEADS: dict[str, type[DeterministicHead] | type[SquashedGaussianHead]] = {
    "deterministic": DeterministicHead,
    "squashed_gaussian": SquashedGaussianHead,
    "wide_gaussian": WideGaussianHead,
}
