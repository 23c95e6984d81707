"""TD3 on a transformer as most people would write it: PyTorch's own layers, the full sequence.

The peer of `update_speed`. It is no straw man: fused Adam, a foreach Polyak step, gradients for
the policy alone. What it lacks is only what Slipstream does differently: its encoder computes
every step of the window, of which the last one is used.
"""

import copy

import torch
from torch import Tensor, nn


class PlainActor(nn.Module):
    """obs (B, T, K) -> action (B, A) of the last step."""

    def __init__(
        self, obs_size: int, action_dim: int, context_length: int, d_model: int, n_heads: int,
        d_ff: int, n_layers: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Linear(obs_size, d_model)
        self.position = nn.Parameter(0.02 * torch.randn(context_length, d_model))
        layer = nn.TransformerEncoderLayer(
            d_model, n_heads, d_ff, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.encoder = nn.TransformerEncoder(
            layer, n_layers, norm=nn.LayerNorm(d_model), enable_nested_tensor=False
        )
        self.head = nn.Linear(d_model, action_dim)
        causal = nn.Transformer.generate_square_subsequent_mask(context_length)
        self.register_buffer("causal", causal)

    causal: Tensor

    def forward(self, obs: Tensor) -> Tensor:
        """Obs (B, T, K) -> (B, A) in [-1, 1]."""
        x = self.embed(obs) + self.position
        x = self.encoder(x, mask=self.causal, is_causal=True)
        return torch.tanh(self.head(x))[:, -1]


class PlainCritic(nn.Module):
    """Two perceptrons: obs (B, K), action (B, A) -> two values (B, 1)."""

    def __init__(self, obs_size: int, action_dim: int, width: int) -> None:
        super().__init__()

        def perceptron() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(obs_size + action_dim, width), nn.ReLU(),
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1),
            )  # fmt: skip

        self.first, self.second = perceptron(), perceptron()

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both values."""
        x = torch.cat([obs, action], -1)
        return self.first(x), self.second(x)


class PlainTD3:
    """The update of TD3 (Fujimoto et al. 2018, algorithm 1), policy delay 2."""

    def __init__(self, actor: PlainActor, critic: PlainCritic, lr: float = 3e-4) -> None:
        self.actor, self.critic = actor, critic
        self.actor_target, self.critic_target = copy.deepcopy(actor), copy.deepcopy(critic)
        self.actor_optimizer = torch.optim.Adam(actor.parameters(), lr=lr, fused=True)
        self.critic_optimizer = torch.optim.Adam(critic.parameters(), lr=lr, fused=True)
        self.gamma, self.tau, self.policy_delay = 0.99, 0.005, 2
        self.noise, self.noise_clip = 0.2, 0.5
        self.num_updates = 0

    def update(self, obs: Tensor, action: Tensor, reward: Tensor, terminated: Tensor) -> None:
        """Obs (B, T + 1, K); action (B, A), reward and terminated (B, 1) of the last step."""
        now, after = obs[:, :-1], obs[:, 1:]
        with torch.no_grad():
            noise = (torch.randn_like(action) * self.noise).clamp(-self.noise_clip, self.noise_clip)
            next_action = (self.actor_target(after) + noise).clamp(-1, 1)
            next_q = torch.min(*self.critic_target(after[:, -1], next_action))
            target = reward + self.gamma * (1 - terminated) * next_q
        first, second = self.critic(now[:, -1], action)
        loss = nn.functional.mse_loss(first, target) + nn.functional.mse_loss(second, target)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()

        self.num_updates += 1
        if self.num_updates % self.policy_delay:
            return
        x = torch.cat([now[:, -1], self.actor(now)], -1)
        self.actor_optimizer.zero_grad(set_to_none=True)
        (-self.critic.first(x).mean()).backward(inputs=list(self.actor.parameters()))
        self.actor_optimizer.step()
        with torch.no_grad():
            for target_net, net in (
                (self.actor_target, self.actor),
                (self.critic_target, self.critic),
            ):
                torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
                    list(target_net.parameters()), list(net.parameters()), self.tau
                )
