"""TD3 (Fujimoto, van Hoof, Meger 2018, arXiv 1802.09477) on windows of any length."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slipstream.algorithms.interfaces import DeterministicActor, EnsembleCritic
from slipstream.algorithms.optim import FusedAdam, movable
from slipstream.algorithms.targets import bootstrapped, loss_columns, masked_mean, polyak, td_loss
from slipstream.batch import Batch
from slipstream.settings import Count, PartOfOne, PositiveShare, Rate, Settings


@dataclass(frozen=True)
class TD3Config(Settings, section="algorithms.td3"):
    """Twin-delayed deterministic policy gradient."""

    gamma: PartOfOne = 0.99
    """Discount."""
    tau: PositiveShare = 0.005
    """Weight of the new parameters in each step of the target networks."""
    policy_delay: Count = 2
    """Critic updates for each policy update."""
    target_policy_noise: Rate = 0.2
    """Standard deviation of the noise on the target action."""
    target_noise_clip: Rate = 0.5
    """Bound of that noise."""
    exploration_noise: Rate = 0.1
    """Standard deviation of the noise on the actions taken."""
    actor_lr: Rate = 3e-4
    """Learning rate of the policy."""
    critic_lr: Rate = 1e-3
    """Learning rate of the critics."""
    memory_lr: Rate | None = None
    """Learning rate of what remembers in policy and critics (LSTM, GRU, transformer) where it is to
    differ from the rest: a recurrent encoder can need a far smaller one (RESeL, arXiv 2405.15384);
    None for no difference."""


class TD3:
    """One policy, twin critics and the targets of both.

    A policy without parameters to move (none, or `requires_grad` off) stays as it is: then this is
    policy evaluation, and the policy may be its own target.
    """

    critic_layer_norm = True
    head = "deterministic"

    def __init__(
        self,
        config: TD3Config,
        actor: DeterministicActor,
        actor_target: DeterministicActor,
        critic: EnsembleCritic,
        critic_target: EnsembleCritic,
    ) -> None:
        self.config = config
        self.actor, self.actor_target = actor, actor_target
        self.critic, self.critic_target = critic, critic_target
        self.actor_parameters = movable(actor.own_parameters())
        self.critic_parameters = movable(critic.parameters())
        self.actor_optimizer = FusedAdam(
            self.actor_parameters, config.actor_lr, actor.memory_parameters(), config.memory_lr
        )
        self.critic_optimizer = FusedAdam(
            self.critic_parameters, config.critic_lr, critic.memory_parameters(), config.memory_lr
        )
        pairs = zip(actor_target.own_parameters(), actor.own_parameters(), strict=True)
        self.actor_target_parameters = [target for target, own in pairs if own.requires_grad]
        pairs = zip(critic_target.parameters(), critic.parameters(), strict=True)
        self.critic_target_parameters = [target for target, own in pairs if own.requires_grad]
        self.num_updates = 0

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One critic update and, every `policy_delay`-th time, one of the policy and the targets.

        Returns detached scalars: critic_loss, q, target_q and, when the policy moved, actor_loss
        and action_saturation (the share of action components beyond 0.95).
        """
        config = self.config
        action, reward, terminated, mask = loss_columns(batch)
        obs, obs_valid, last = batch.obs, batch.obs_valid, batch.loss_steps
        next_obs, next_valid = batch.next_obs, batch.next_valid

        with torch.no_grad():
            # Target policy smoothing.
            next_action = self.actor_target(next_obs, next_valid, last).mode
            noise = torch.empty_like(next_action).normal_(0, config.target_policy_noise)
            noise.clamp_(-config.target_noise_clip, config.target_noise_clip)
            next_action = (next_action + noise).clamp_(-1, 1)
            # Clipped double Q-learning.
            next_q = self.critic_target(next_obs, next_valid, next_action).amin(0)
            target_q = bootstrapped(reward, terminated, next_q, config.gamma)

        q = self.critic(obs, obs_valid, action)
        critic_loss = td_loss(q, target_q, mask)
        self.critic_optimizer.minimize(critic_loss)
        self.num_updates += 1
        metrics = {
            "critic_loss": critic_loss.detach(),
            "q": masked_mean(q[0].detach(), mask),
            "target_q": masked_mean(target_q, mask),
        }

        # Delayed policy update.
        if self.num_updates % config.policy_delay == 0:
            if self.actor_parameters:
                policy_action = self.actor(obs, obs_valid, last).mode
                policy_q = self.critic(obs, obs_valid, policy_action, first=True)[0]
                actor_loss = -masked_mean(policy_q, mask)
                self.actor_optimizer.minimize(actor_loss)
                polyak(self.actor_target_parameters, self.actor_parameters, config.tau)
                metrics["actor_loss"] = actor_loss.detach()
                metrics["action_saturation"] = (policy_action.detach().abs() > 0.95).float().mean()
            polyak(self.critic_target_parameters, self.critic_parameters, config.tau)
        return metrics

    def explore(self, output: Any) -> Tensor:
        """The action to take: the policy's plus Gaussian noise, (N, A) in [-1, 1]."""
        noise = torch.randn_like(output.mode) * self.config.exploration_noise
        return (output.mode + noise).clamp_(-1, 1)

    def state_dict(self) -> dict[str, Any]:
        """Target policy, optimizers and counter; policy and critics belong to the run."""
        return {
            "actor_target": self.actor_target_parameters,
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        with torch.no_grad():
            for target, value in zip(
                self.actor_target_parameters, state["actor_target"], strict=True
            ):
                target.copy_(value)
        self.actor_optimizer.load_state_dict(state["actor_optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.num_updates = state["num_updates"]
