"""Running a policy without exploration, on fixed seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from slipstream.algorithms.cloning import action_error
from slipstream.envs.vec_env import Episode, VecEnv
from slipstream.errors import SlipstreamError
from slipstream.networks import Actor
from slipstream.networks.memory import Carry
from slipstream.stages.interact import MAX_STEPS, random_action, to_tensors


@dataclass(frozen=True)
class Evaluation:
    """One episode for each seed.

    Attributes:
        returns: undiscounted, in the order of the seeds.
        lengths: steps of each episode.
        successes: whether each reported success at any step; None if none reported anything, be it
            that the environment never does or that it reports success alone.
        num_steps: env steps that were taken, those behind an episode's end included.
        action_error: mean squared difference to another policy's actions on these states.
        successes_at_end: whether each reported success at its last step; None if none reported
            anything then.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    successes: tuple[bool, ...] | None
    num_steps: int
    action_error: float | None = None
    successes_at_end: tuple[bool, ...] | None = None

    @cached_property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    def scores(self, by_success: bool) -> tuple[float, ...]:
        """What each episode is judged by: success (1 or 0; 0 where none was reported), or return.

        A return may well fall as success rises: who is quickly done has no more to earn by being
        near, and what follows success is nothing that was learnt.
        """
        if not by_success:
            return self.returns
        return tuple(map(float, self.successes or (False,) * len(self.returns)))

    def rank(self, by_success: bool) -> tuple[float, float]:
        """Mean score, and between equals the mean return: greater is better."""
        return float(np.mean(self.scores(by_success))), self.mean

    def metrics(self, actor: str) -> dict[str, Any]:
        """Names and values as they are logged."""
        values: dict[str, Any] = {
            f"eval/{actor}/return": self.mean,
            f"eval/{actor}/return_std": float(np.std(self.returns)),
            f"eval/{actor}/returns": list(self.returns),
            f"eval/{actor}/length": float(np.mean(self.lengths)),
        }
        if self.successes is not None:
            values[f"eval/{actor}/success_once"] = float(np.mean(self.successes))
        if self.successes_at_end is not None:
            values[f"eval/{actor}/success_at_end"] = float(np.mean(self.successes_at_end))
        return values


def evaluate(
    actor: Actor | None, env: VecEnv, seeds: Sequence[int], compare: Actor | None = None
) -> Evaluation:
    """One noise-free episode for each seed.

    Args:
        actor: the policy; None acts uniformly at random.
        env: as many environments as there are seeds.
        seeds: of the episodes.
        compare: a policy whose actions on the same states are compared with the actor's.

    Returns:
        Returns and lengths in the order of the seeds.
    """
    env.show_images(any(_sees_images(each, env) for each in (actor, compare)))
    obs = env.reset(seeds)
    device = torch.device("cpu") if actor is None else actor.device
    carry: Carry = {} if actor is None else actor.initial_carry(env.num_envs)
    other_carry: Carry = {} if compare is None else compare.initial_carry(env.num_envs)
    # Carries are never reset here: what an environment does behind its first episode is ignored.
    finished: dict[int, Episode] = {}
    running = np.ones(env.num_envs, dtype=bool)
    errors: list[torch.Tensor] = []
    num_steps = 0
    while running.any():
        if actor is None:
            action = random_action(env.num_envs, env.spec.action_dim)
        else:
            tensors = to_tensors(obs, device)
            output, carry = actor.step(tensors, carry)
            action = output.mode
            if compare is not None:
                other, other_carry = compare.step(tensors, other_carry)
                errors.append(action_error(output, other)[torch.from_numpy(running)])
        result = env.step(action)
        num_steps += int(result.acted.sum())
        if num_steps > MAX_STEPS * env.num_envs:
            raise SlipstreamError(
                f"an evaluation episode of {env.spec.env_id} did not end within {MAX_STEPS} steps; "
                "set a time limit with --env.max-episode-steps"
            )
        for episode in result.episodes:
            if running[episode.env_index]:
                running[episode.env_index] = False
                finished[episode.env_index] = episode
        obs = result.obs
    episodes = [finished[i] for i in range(env.num_envs)]
    return Evaluation(
        returns=tuple(episode.episode_return for episode in episodes),
        lengths=tuple(episode.length for episode in episodes),
        successes=_reported([episode.success for episode in episodes]),
        num_steps=num_steps,
        action_error=float(torch.cat(errors).mean()) if errors else None,
        successes_at_end=_reported([episode.success_at_end for episode in episodes]),
    )


def _sees_images(actor: Actor | None, env: VecEnv) -> bool:
    keys = () if actor is None else actor.inputs.keys
    return any(len(env.spec.obs[key].shape) == 3 for key in keys)


def _reported(values: list[bool | None]) -> tuple[bool, ...] | None:
    """Reports of success; where there is one at all, a missing one is a failure."""
    if all(value is None for value in values):
        return None
    return tuple(bool(value) for value in values)
