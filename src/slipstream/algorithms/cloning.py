"""Behaviour cloning of one policy by another (Zelezetsky et al. 2025, algorithms 2 and 3)."""

from typing import Any, cast

import torch
from torch import Tensor

from slipstream.algorithms.interfaces import (
    DeterministicActor,
    EnsembleCritic,
    PolicyOutput,
    StochasticOutput,
)
from slipstream.algorithms.optim import FusedAdam
from slipstream.algorithms.targets import loss_columns, masked_mean
from slipstream.batch import Batch

LOG_STD_WEIGHT = 0.1


class Cloning:
    """A student policy, its optimizer, and the distance to a teacher's outputs.

    Args:
        student: the policy that is moved.
        lr: its learning rate.
        critic: values for the ascent; never moved here.
        ascent: weight of the ascent on the critic's first member beside the cloning loss (the
            paper's algorithm 3); 0 clones alone.
    """

    def __init__(
        self,
        student: DeterministicActor,
        lr: float,
        critic: EnsembleCritic | None = None,
        ascent: float = 0.0,
    ) -> None:
        self.student = student
        self.critic = critic
        self.ascent = ascent
        self.optimizer = FusedAdam(student.own_parameters(), lr)
        self.num_updates = 0

    def update(self, batch: Batch, label: PolicyOutput | Tensor) -> dict[str, Tensor]:
        """One step towards the labels of each window's last steps.

        Args:
            batch: windows; only `obs`, its validity and the mask are read.
            label: the teacher's output at the `loss_steps` last steps, (B, L, A), or bare actions.
                A squashed Gaussian is cloned whole: mode and log-std.

        Returns:
            The detached `loss` and `action_error`, the mean squared difference of actions.
        """
        *_, mask = loss_columns(batch)
        output = self.student(batch.obs, batch.obs_valid, batch.loss_steps)
        action = label if isinstance(label, Tensor) else label.mode
        action_error = masked_mean((output.mode - action.detach()).square().mean(-1), mask)
        loss = action_error
        log_std: Tensor | None = getattr(label, "log_std", None)
        if log_std is not None:
            # In action space plus log-std rather than a KL divergence: where tanh saturates, two
            # Gaussians far apart are the same policy.
            own = cast("StochasticOutput", output).log_std
            spread = masked_mean((own - log_std.detach()).square().mean(-1), mask)
            loss = loss + LOG_STD_WEIGHT * spread
        if self.critic is not None and self.ascent:
            q = self.critic(batch.obs, batch.obs_valid, output.mode, first=True)[0]
            # Divided by its own size, as in TD3+BC (Fujimoto and Gu 2021), which the paper does
            # not: a fixed weight means something else on each task and at each moment.
            rise = masked_mean(q, mask) / masked_mean(q.detach().abs(), mask)
            loss = loss - self.ascent * rise
        self.optimizer.minimize(loss)
        self.num_updates += 1
        return {"loss": loss.detach(), "action_error": action_error.detach()}

    def state_dict(self) -> dict[str, Any]:
        """Optimizer and counter."""
        return {"optimizer": self.optimizer.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.num_updates = state["num_updates"]


@torch.no_grad()
def action_error(student: PolicyOutput, teacher: PolicyOutput) -> Tensor:
    """Squared difference of two policies' modes at the same states, (N, A) -> (N,) on the CPU."""
    return (student.mode - teacher.mode).square().mean(-1).cpu()
