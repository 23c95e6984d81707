"""Making single environments, from ids or functions, with errors that say what to do."""

import difflib
import os
import signal
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import parse_env_id

from slipstream.envs import mujoco
from slipstream.envs.recorder import EpisodeRecorder
from slipstream.envs.spaces import ActionScale, observation_spec
from slipstream.errors import SlipstreamError

EnvFactory = Callable[[], gym.Env[Any, Any]]
PROBE_NAMESPACE = "slipstream/"


def env_factories(
    env: str | EnvFactory | Sequence[EnvFactory], num_envs: int, env_kwargs: Mapping[str, Any]
) -> list[EnvFactory]:
    """One function for each environment of a vector.

    Args:
        env: an id, a function that makes one environment, or one function for each.
        num_envs: how many; with several functions it may be left at 1.
        env_kwargs: for an id only, keyword arguments of `gymnasium.make`.

    Raises:
        SlipstreamError: an unknown id, or a number of environments that does not fit.
    """
    if num_envs < 1:
        raise SlipstreamError(f"num_envs must be at least 1, got {num_envs}")
    if isinstance(env, str):
        return [partial(build, resolve_id(env), dict(env_kwargs))] * num_envs
    if env_kwargs:
        raise SlipstreamError(
            f"env_kwargs {dict(env_kwargs)} are for an id only: let the function that makes the "
            "environment use them"
        )
    if callable(env):
        return [env] * num_envs
    if isinstance(env, Sequence) and env and num_envs in (1, len(env)):
        return list(env)
    if isinstance(env, Sequence):
        raise SlipstreamError(
            f"num_envs is {num_envs}, but there are {len(env)} functions that make an environment: "
            "leave num_envs out, and give at least one function"
        )
    raise SlipstreamError(
        f"cannot make an environment of {type(env).__name__}: give an id, a function that returns "
        "a gymnasium.Env, or a gymnasium VectorEnv"
    )


def record(factory: EnvFactory, main_pid: int) -> EpisodeRecorder:
    """Make one environment that can be restored, and check that its spaces are supported.

    Args:
        factory: makes the environment.
        main_pid: the process that trains. In any other this leaves Ctrl-C to that one, which
            still needs the environment in order to save its state.

    Raises:
        SlipstreamError: not a gymnasium environment, or a space that is not supported.
    """
    if os.getpid() != main_pid:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    env = factory()
    if not isinstance(env, gym.Env):
        raise SlipstreamError(
            f"the function that makes the environment returned {type(env).__name__}: it must "
            "return a gymnasium.Env"
        )
    recorder = EpisodeRecorder(env)
    # Here, before the vector environment meets a space that it cannot batch.
    observation_spec(env.observation_space, recorder.description[0])
    ActionScale(env.action_space, recorder.description[0])
    return recorder


def resolve_id(env_id: str) -> str:
    """The id that will be made for the id that was asked for.

    A superseded MuJoCo id is replaced by its v5 successor, with a warning.

    Raises:
        SlipstreamError: no environment is registered under that id.
    """
    successor = mujoco.successor(env_id)
    if successor is not None:
        warnings.warn(
            f"{env_id} is superseded: running its successor {successor} instead (returns differ a "
            f"little from those published for {env_id})",
            stacklevel=2,
        )
        return successor
    if env_id.startswith(PROBE_NAMESPACE):
        from slipstream.envs import probe

        probe.register()
    try:
        parse_env_id(env_id.rpartition(":")[2])
    except gym.error.Error as error:
        raise SlipstreamError(_unknown(env_id)) from error
    # "module:Name-v0" is registered by importing the module, which gymnasium does while making it.
    if ":" not in env_id and env_id not in gym.registry and _unversioned(env_id) is None:
        raise SlipstreamError(_unknown(env_id))
    return env_id


def build(env_id: str, env_kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    """Make one environment.

    Args:
        env_id: a registered id, `module:id` included.
        env_kwargs: keyword arguments of `gymnasium.make` (`max_episode_steps` among them).

    Raises:
        SlipstreamError: unknown id, or a package that the environment needs is missing.
    """
    if env_id.startswith(PROBE_NAMESPACE):
        from slipstream.envs import probe

        probe.register()
    try:
        # The adapter makes its own checks; gymnasium's would run a second time on every step.
        with mujoco.deprecations_muted() if mujoco.is_mujoco(env_id) else nullcontext():
            return gym.make(env_id, **{"disable_env_checker": True, **env_kwargs})
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        raise SlipstreamError(_unknown(env_id)) from error
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        raise SlipstreamError(_missing(env_id, error)) from error
    except TypeError as error:
        if not env_kwargs:
            raise
        raise SlipstreamError(
            f"{env_id} cannot be made with {dict(env_kwargs)}: {' '.join(str(error).split())}"
        ) from error


def _unversioned(env_id: str) -> str | None:
    """A registered id of that name when no version is given (gymnasium takes the newest)."""
    return next((known for known in gym.registry if known.rpartition("-v")[0] == env_id), None)


def _unknown(env_id: str) -> str:
    # Ids that would be replaced, or that need a package gymnasium no longer ships, help nobody.
    known = {
        name.lower(): name
        for name in gym.registry
        if mujoco.successor(name) is None and not name.startswith(("phys2d/", "tabular/"))
    }
    close = [known[name] for name in difflib.get_close_matches(env_id.lower(), known, 3, 0.5)]
    hint = f"did you mean {' or '.join(close)}?" if close else "no registered id resembles it;"
    return (
        f"unknown environment {env_id!r}: {hint} (an id that another package registers is written "
        "package:id)"
    )


def _missing(env_id: str, error: Exception) -> str:
    detail = " ".join(str(error).split())
    if mujoco.is_mujoco(env_id):
        return f'{env_id} cannot be made ({detail}): pip install "gymnasium[mujoco]"'
    module = getattr(error, "name", None) or env_id.rpartition(":")[0]
    if module and "pip install" not in detail:
        detail = f"{detail}: pip install the package that provides {module!r}"
    return f"{env_id} cannot be made, a package is missing: {detail}"
