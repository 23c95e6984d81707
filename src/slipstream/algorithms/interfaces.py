"""What a learner asks of the modules it is handed."""

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor, nn

from slipstream.batch import Obs


class PolicyOutput(Protocol):
    """A policy at some steps."""

    @property
    def mode(self) -> Tensor:
        """The action without exploration, (..., A) in [-1, 1]."""
        ...


class StochasticOutput(PolicyOutput, Protocol):
    """A squashed Gaussian at some steps."""

    mean: Tensor
    log_std: Tensor

    def sample(self) -> Tensor:
        """Actions (..., A)."""
        ...

    def rsample_with_log_prob(self) -> tuple[Tensor, Tensor]:
        """Actions (..., A) and their log-probabilities (...)."""
        ...


class DeterministicActor(Protocol):
    """obs key -> (B, T, *), valid (B, T) -> the policy at the `last` steps."""

    def __call__(self, obs: Obs, valid: Tensor, last: int = 1) -> PolicyOutput:
        """The policy at the last steps, (B, last, A)."""
        ...

    def own_parameters(self) -> Iterable[nn.Parameter]:
        """What an optimizer moves, as far as `requires_grad` is on."""
        ...

    def memory_parameters(self) -> Iterable[nn.Parameter]:
        """Those of them that belong to a memory."""
        ...


class StochasticActor(Protocol):
    """obs key -> (B, T, *), valid (B, T) -> the distribution at the `last` steps."""

    def __call__(self, obs: Obs, valid: Tensor, last: int = 1) -> StochasticOutput:
        """The distribution at the last steps, (B, last, A)."""
        ...

    def own_parameters(self) -> Iterable[nn.Parameter]:
        """What an optimizer moves, as far as `requires_grad` is on."""
        ...

    def memory_parameters(self) -> Iterable[nn.Parameter]:
        """Those of them that belong to a memory."""
        ...


class EnsembleCritic(Protocol):
    """obs key -> (B, T, *), valid (B, T), action (B, L, A) -> values (E, B, L)."""

    def __call__(self, obs: Obs, valid: Tensor, action: Tensor, first: bool = False) -> Tensor:
        """Values at the last L steps, of all members of the ensemble or the first alone."""
        ...

    def parameters(self) -> Iterable[nn.Parameter]:
        """What an optimizer moves."""
        ...

    def memory_parameters(self) -> Iterable[nn.Parameter]:
        """Those of them that belong to a memory."""
        ...
