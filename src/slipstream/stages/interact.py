"""Stepping the environments with whichever actor collects, and storing what happens."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slipstream.envs.arrays import Array
from slipstream.envs.vec_env import StepResult, VecEnv
from slipstream.networks import Actor, Normalizers
from slipstream.networks.memory import Carry, reset_carry
from slipstream.replay.buffer import ReplayBuffer

MAX_STEPS = 100_000
"""Of an episode that is run for its own sake, where the environment sets no limit."""

Explore = Callable[[Any], Tensor]
Embed = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def _as_it_is(obs: Mapping[str, Array]) -> Mapping[str, Array]:
    return obs


def to_tensors(obs: Mapping[str, Array], device: torch.device) -> dict[str, Tensor]:
    """Observations as tensors on the policy's device; those that are there stay as they are."""
    return {key: torch.as_tensor(value).to(device) for key, value in obs.items()}


def random_action(num_envs: int, action_dim: int) -> Tensor:
    """Uniform actions (N, A) in [-1, 1)."""
    return torch.rand(num_envs, action_dim) * 2 - 1


class Interaction:
    """N environments, the observation each waits on, and the collecting actor's memory.

    Args:
        env: the environments.
        replay: where rows go.
        normalizers: take in each observation while it runs.
        embed: replaces images by embeddings before anybody sees them; None leaves them.
    """

    def __init__(
        self,
        env: VecEnv,
        replay: ReplayBuffer,
        normalizers: Normalizers,
        embed: Embed | None = None,
    ) -> None:
        self.env = env
        self.replay = replay
        self.normalizers = normalizers
        self._embed: Embed = embed or _as_it_is
        self._obs: Mapping[str, Array] = {}
        self.carry: Carry = {}

    def begin(self, actor: Actor, seed: int | None = None) -> None:
        """Start new episodes everywhere with this actor; unfinished ones count as truncated."""
        obs = self._obs = self._embed(self.env.reset(seed))
        self.replay.begin(obs)
        self.carry = actor.initial_carry(self.env.num_envs)
        self._observe(obs, np.ones(self.env.num_envs, dtype=bool))

    def step(self, actor: Actor, explore: Explore, random: bool = False) -> StepResult:
        """One step in every environment.

        Args:
            actor: who acts; it must have seen the episodes from their start (see `begin`).
            explore: turns the policy's output into the action taken.
            random: act uniformly instead; the actor's memory still moves along.
        """
        device = actor.device
        output, carry = actor.step(to_tensors(self._obs, device), self.carry)
        if random:
            action = random_action(self.env.num_envs, self.env.spec.action_dim)
        else:
            with torch.no_grad():
                action = explore(output)
        result = self.env.step(action)
        next_obs = self._embed(result.next_obs)
        ended = result.obs is not result.next_obs
        obs = self._obs = self._embed(result.obs) if ended else next_obs
        self.replay.add(
            action,
            result.reward,
            result.terminated,
            result.truncated,
            next_obs,
            result.acted if not result.acted.all() else None,
        )
        if result.started.any():
            self.replay.begin(obs, result.started)
            started = torch.as_tensor(result.started).to(device)
            carry = reset_carry(carry, actor.initial_carry(self.env.num_envs), started)
        self.carry = carry
        self._observe(obs, result.acted | result.started)
        return result

    def _observe(self, obs: Mapping[str, Array], rows: np.ndarray) -> None:
        for key, normalizer in self.normalizers.items():
            seen = torch.as_tensor(obs[key]).to(normalizer.mean.device)
            normalizer.observe(seen if rows.all() else seen[torch.as_tensor(rows)])

    def state_dict(self) -> dict[str, Any]:
        """Running episodes and the collector's memory."""
        return {"env": self.env.state_dict(), "carry": self.carry}

    def load_state_dict(self, state: Mapping[str, Any], actor: Actor) -> bool:
        """Go on where the saved interaction stood; the replay must be loaded before.

        Returns:
            False where an environment could not be restored exactly and began a new episode.
        """
        exact = self.env.load_state_dict(state["env"])
        device = actor.device
        self.carry = {name: value.to(device) for name, value in state["carry"].items()}
        self._obs = self._embed(self.env.current_obs)
        if not exact:
            restarted = self.env.restarted
            self.replay.begin(self._obs, restarted)
            fresh = actor.initial_carry(self.env.num_envs)
            self.carry = reset_carry(self.carry, fresh, torch.as_tensor(restarted, device=device))
        return exact


def rollout(
    env: VecEnv, actor: Actor, replay: ReplayBuffer, num_episodes: int, seed: int
) -> tuple[int, list[float]]:
    """Whole noise-free episodes of one actor, stored in a replay of their own.

    One that has no end after `MAX_STEPS` steps is cut off, with a warning, and is the last.

    Returns:
        The env steps they took, which count, and the returns of those that ended.
    """
    interaction = Interaction(env, replay, {})
    interaction.begin(actor, seed)
    returns: list[float] = []
    num_steps = ended_at = 0
    while len(returns) < num_episodes:
        result = interaction.step(actor, lambda output: output.mode)
        num_steps += int(result.acted.sum())
        returns.extend(episode.episode_return for episode in result.episodes)
        if result.episodes:
            ended_at = num_steps
        elif num_steps - ended_at >= MAX_STEPS * env.num_envs:
            warnings.warn(
                f"an episode of {env.spec.env_id} that was run to be cloned from did not end "
                f"within {MAX_STEPS} steps and was cut off; set a time limit with "
                "--env.max-episode-steps",
                stacklevel=2,
            )
            break
    return num_steps, returns
