"""Making vectorised environments: of an id, of functions, or of what is one already."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from slipstream.envs.registry import EnvFactory, env_factories, record
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError


class Added(TypedDict):
    """Which observations the adapter adds; see `VecEnv`."""

    prev_action: bool
    prev_reward: bool
    differences: bool


def make_env(
    env: str | EnvFactory | Sequence[EnvFactory] | VectorEnv[Any, Any, Any],
    *,
    num_envs: int = 1,
    parallel: bool = False,
    env_kwargs: Mapping[str, Any] | None = None,
    prev_action: bool = False,
    prev_reward: bool = False,
    differences: bool = False,
    context: str | None = None,
) -> VecEnv:
    """Make a vectorised environment.

    Args:
        env: a registered id (superseded MuJoCo ids run as their v5 successor, with a warning), a
            function that makes one environment, one such function for each environment, or a
            vector environment that already exists (its running episodes cannot be restored). One
            with an attribute `device` speaks torch: actions go to it, and observations come from
            it, as tensors on that device.
        num_envs: how many environments; given by `env` in the last two cases.
        parallel: one process for each environment.
        env_kwargs: for an id only, keyword arguments of `gymnasium.make`, `max_episode_steps`
            among them.
        prev_action: show each environment's previous action (see `VecEnv`).
        prev_reward: show its previous reward.
        differences: show by how much its vectors changed since the last step.
        context: how processes are started, a method of `multiprocessing`; None takes its default.

    Raises:
        SlipstreamError: unknown id, missing package, unsupported space, bad `num_envs`.
    """
    if isinstance(env, VectorEnv):
        if num_envs not in (1, env.num_envs):
            raise SlipstreamError(
                f"num_envs is {num_envs}, but the vector environment holds {env.num_envs}: leave "
                "num_envs out"
            )
        device = getattr(env, "device", None)
        return VecEnv(
            env,
            device=device,
            prev_action=prev_action,
            prev_reward=prev_reward,
            differences=differences,
        )
    factories = env_factories(env, num_envs, env_kwargs or {})
    # SAME_STEP: no call is spent on a reset. No copies there: the adapter makes its own.
    vector_class = partial(AsyncVectorEnv, context=context) if parallel else SyncVectorEnv
    return VecEnv(
        vector_class(
            [partial(record, factory, os.getpid()) for factory in factories],
            copy=False,
            autoreset_mode=AutoresetMode.SAME_STEP,
        ),
        recorded=True,
        prev_action=prev_action,
        prev_reward=prev_reward,
        differences=differences,
    )
