"""A user's own environment, made by a function of theirs that is named by its import path."""

import traceback
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TimeLimit

from slipstream.errors import SlipstreamError


class OwnEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Goes by its import path, which is the id that a run and its policy store."""

    def __init__(self, env: gym.Env[Any, Any], path: str) -> None:
        super().__init__(env)
        self._own_spec = EnvSpec(path, path, max_episode_steps=_limit(env))

    @property
    def spec(self) -> EnvSpec:
        """The import path and the time limit, as of an environment with an id."""
        return self._own_spec


def build_own(path: str, function: Any, env_kwargs: Mapping[str, Any]) -> OwnEnv:
    """Make one environment.

    Args:
        path: the function's import path.
        function: returns a `gymnasium.Env`; a class derived from it is such a function.
        env_kwargs: the function's keyword arguments, and `max_episode_steps`, a time limit that
            takes the place of the environment's own.

    Raises:
        SlipstreamError: not callable, it fails, or it returns something else.
    """
    kwargs = dict(env_kwargs)
    limit = kwargs.pop("max_episode_steps", None)
    if not callable(function):
        raise SlipstreamError(
            f"{path} is a {type(function).__name__}, not a function; name a function that returns "
            "a gymnasium.Env"
        )
    try:
        env = function(**kwargs)
    except SlipstreamError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise SlipstreamError(
            f"{path} cannot be made with {kwargs or 'no arguments'}: {type(error).__name__}: "
            f"{' '.join(str(error).split())} ({where.filename}, line {where.lineno})"
        ) from error
    if not isinstance(env, gym.Env):
        raise SlipstreamError(
            f"{path} returned {type(env).__name__}; it must return a gymnasium.Env"
        )
    return OwnEnv(env if limit is None else _limited(env, limit), path)


def _limited(env: gym.Env[Any, Any], limit: int) -> gym.Env[Any, Any]:
    """The environment with this time limit in place of one that it may have."""
    inner = _time_limit(env)
    if inner is None:
        return TimeLimit(env, limit)
    inner._max_episode_steps = limit
    return env


def _time_limit(env: gym.Env[Any, Any]) -> TimeLimit[Any, Any] | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit):
            return env
        env = env.env
    return None


def _limit(env: gym.Env[Any, Any]) -> int | None:
    inner = _time_limit(env)
    if inner is not None:
        return int(inner._max_episode_steps)
    return None if env.spec is None else env.spec.max_episode_steps
