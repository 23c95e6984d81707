"""A run's environments: what is collected in, what of it the policy sees."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym

from slipstream.envs.observation import ObservationConfig, observe
from slipstream.envs.registry import build, resolve_id
from slipstream.envs.vec_env import VecEnv, make_env
from slipstream.errors import SlipstreamError

Scalar = bool | int | float | str


@dataclass(frozen=True)
class EnvConfig:
    """The environments that data is collected in."""

    num_envs: int = 1
    """Environments side by side."""
    parallel: bool = False
    """One process for each environment."""
    normalize_obs: bool = False
    """Normalize observations by their running mean and variance, saved with the policy."""
    max_episode_steps: int | None = None
    """Time limit in steps; None keeps the environment's own."""
    kwargs: dict[str, Scalar] = field(default_factory=dict)
    """Keyword arguments of the environment itself, such as `--env.kwargs ctrl_cost_weight 0.2`."""
    observe: ObservationConfig = field(default_factory=ObservationConfig)
    """What the policy sees of an observation."""
    prev_action: bool = False
    """Show the policy its previous action, too (zeros at an episode's start)."""
    prev_reward: bool = False
    """Show the policy the previous reward, too (zero at an episode's start)."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for counts below one."""
        for name in ("num_envs", "max_episode_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SlipstreamError(f"env.{name} is {value}; it must be at least 1")


def open_env(
    env_id: str, config: EnvConfig, num_envs: int, parallel: bool = False, privileged: bool = False
) -> VecEnv:
    """Environments of a run.

    Args:
        env_id: a registered id.
        config: what the policy sees, and the time limit.
        num_envs: how many.
        parallel: one process for each.
        privileged: show the whole, undisturbed observation beside the policy's, as "privileged".

    Raises:
        SlipstreamError: as `make_env`, or a mask that does not fit the environment.
    """
    limit = config.max_episode_steps
    kwargs = {**config.kwargs, **({} if limit is None else {"max_episode_steps": limit})}
    make = partial(_observed, resolve_id(env_id), kwargs, config.observe, privileged)
    return make_env(
        make,
        num_envs=num_envs,
        parallel=parallel,
        prev_action=config.prev_action,
        prev_reward=config.prev_reward,
    )


def _observed(
    env_id: str, kwargs: dict[str, Any], config: ObservationConfig, privileged: bool
) -> gym.Env[Any, Any]:
    return observe(build(env_id, kwargs), config, privileged)
