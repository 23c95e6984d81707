"""SAC with automatic temperature (Haarnoja et al. 2018b, arXiv 1812.05905), on windows."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor

from slipstream.algorithms.interfaces import EnsembleCritic, StochasticActor
from slipstream.algorithms.optim import FusedAdam, movable
from slipstream.algorithms.targets import bootstrapped, loss_columns, masked_mean, polyak, td_loss
from slipstream.batch import Batch
from slipstream.settings import PartOfOne, PositiveShare, Rate, Settings


@dataclass(frozen=True)
class SACConfig(Settings, section="algorithms.sac"):
    """Soft actor-critic."""

    gamma: PartOfOne = 0.99
    """Discount."""
    tau: PositiveShare = 0.005
    """Weight of the new parameters in each step of the target critics."""
    alpha: Annotated[float, Gt(0)] = 1.0
    """Temperature, or its first value if it is tuned."""
    tune_alpha: bool = True
    """Tune the temperature towards the target entropy."""
    target_entropy: float | None = None
    """Target entropy; None is minus the number of action components."""
    actor_lr: Rate = 3e-4
    """Learning rate of the policy."""
    critic_lr: Rate = 1e-3
    """Learning rate of the critics."""
    memory_lr: Rate | None = None
    """Learning rate of what remembers in policy and critics (LSTM, GRU, transformer) where it is to
    differ from the rest: a recurrent encoder can need a far smaller one (RESeL, arXiv 2405.15384);
    None for no difference."""
    alpha_lr: Rate = 1e-3
    """Learning rate of the temperature."""


class SAC:
    """One stochastic policy with its temperature, twin critics and their targets.

    A policy without parameters to move (none, or `requires_grad` off) stays as it is: then this is
    policy evaluation, and the temperature is set to what the policy's spread says (see
    `_balance`).
    """

    critic_layer_norm = False
    head = "squashed_gaussian"

    def __init__(
        self,
        config: SACConfig,
        actor: StochasticActor,
        critic: EnsembleCritic,
        critic_target: EnsembleCritic,
        log_alpha: Tensor,
    ) -> None:
        self.config = config
        self.actor, self.critic, self.critic_target = actor, critic, critic_target
        self.log_alpha = log_alpha
        self.actor_parameters = movable(actor.own_parameters())
        self.critic_parameters = movable(critic.parameters())
        pairs = zip(critic_target.parameters(), critic.parameters(), strict=True)
        self.critic_target_parameters = [target for target, own in pairs if own.requires_grad]
        self.actor_optimizer = FusedAdam(
            self.actor_parameters, config.actor_lr, actor.memory_parameters(), config.memory_lr
        )
        self.critic_optimizer = FusedAdam(
            self.critic_parameters, config.critic_lr, critic.memory_parameters(), config.memory_lr
        )
        self.alpha_optimizer = FusedAdam([log_alpha], config.alpha_lr)
        self.num_updates = 0

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the critics, the policy, the temperature and the target critics.

        Returns detached scalars: critic_loss, q, target_q, alpha and, where the policy moves,
        actor_loss, entropy, action_saturation (the share of action components whose mode is beyond
        0.95).
        """
        config = self.config
        action, reward, terminated, mask = loss_columns(batch)
        obs, obs_valid, last = batch.obs, batch.obs_valid, batch.loss_steps
        next_obs, next_valid = batch.next_obs, batch.next_valid
        alpha = self.log_alpha.detach().exp()

        with torch.no_grad():
            next_output = self.actor(next_obs, next_valid, last)
            next_action, next_log_prob = next_output.rsample_with_log_prob()
            next_q = self.critic_target(next_obs, next_valid, next_action).amin(0)
            soft_value = torch.addcmul(next_q, alpha, next_log_prob, value=-1)
            target_q = bootstrapped(reward, terminated, soft_value, config.gamma)

        q = self.critic(obs, obs_valid, action)
        critic_loss = td_loss(q, target_q, mask)
        self.critic_optimizer.minimize(critic_loss)

        improve = self._improve if self.actor_parameters else self._balance
        metrics = improve(batch, alpha, mask)
        polyak(self.critic_target_parameters, self.critic_parameters, config.tau)
        self.num_updates += 1
        return {
            "critic_loss": critic_loss.detach(),
            "q": masked_mean(q[0].detach(), mask),
            "target_q": masked_mean(target_q, mask),
            "alpha": alpha.squeeze(0),
            **metrics,
        }

    def _improve(self, batch: Batch, alpha: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Move the policy, and the temperature towards the target entropy."""
        config = self.config
        obs, obs_valid = batch.obs, batch.obs_valid
        output = self.actor(obs, obs_valid, batch.loss_steps)
        policy_action, log_prob = output.rsample_with_log_prob()
        policy_q = self.critic(obs, obs_valid, policy_action).amin(0)
        actor_loss = masked_mean(alpha * log_prob - policy_q, mask)
        self.actor_optimizer.minimize(actor_loss)

        entropy = -masked_mean(log_prob.detach(), mask)
        if config.tune_alpha:
            target_entropy = config.target_entropy
            if target_entropy is None:
                target_entropy = -float(policy_action.shape[-1])
            # The gradient of log_alpha * (entropy - target); the paper writes alpha for log_alpha,
            # which only rescales the step.
            self.alpha_optimizer.step([(entropy - target_entropy).reshape(1)])
        return {
            "actor_loss": actor_loss.detach(),
            "entropy": entropy,
            "action_saturation": (output.mean.detach().abs() > 1.83).float().mean(),
        }

    def _balance(self, batch: Batch, alpha: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Leave the policy alone, and move the temperature to where its spread would be best.

        A frozen policy's entropy never answers to the temperature, so tuning that towards a target
        would drive it to nothing or beyond all bounds. But at SAC's optimum the last widening of
        the policy costs in value what it gains in entropy: with a = mode + d, that is
        alpha = -E[dQ/da . d] for each action component. So stage 2, whose policy starts as this
        one's clone, starts with a temperature that fits the rewards of the task.
        """
        obs, obs_valid = batch.obs, batch.obs_valid
        with torch.no_grad():
            output = self.actor(obs, obs_valid, batch.loss_steps)
            action = output.sample()
        action.requires_grad_()
        q = self.critic(obs, obs_valid, action).amin(0)
        (slope,) = torch.autograd.grad(q.sum(), [action])
        cost = -masked_mean((slope * (action.detach() - output.mode)).mean(-1), mask)
        if self.config.tune_alpha:
            self.alpha_optimizer.step([alpha - cost])
        return {"spread_cost": cost}

    def explore(self, output: Any) -> Tensor:
        """The action to take: a sample, (N, A) in [-1, 1]."""
        return output.sample()

    def state_dict(self) -> dict[str, Any]:
        """Temperature, optimizers and counter; policy and critics belong to the run."""
        return {
            "log_alpha": self.log_alpha,
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        self.actor_optimizer.load_state_dict(state["actor_optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.num_updates = state["num_updates"]


def initial_log_alpha(config: SACConfig, device: torch.device | str = "cpu") -> Tensor:
    """The first log-temperature, (1,), ready for an optimizer."""
    return torch.full((1,), math.log(config.alpha), device=device, requires_grad=True)
