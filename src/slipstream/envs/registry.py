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
from slipstream.envs.contact import FirstContact
from slipstream.envs.maniskill.single import ManiSkillEnv
from slipstream.envs.maniskill.tasks import is_maniskill
from slipstream.envs.recorder import EpisodeRecorder
from slipstream.envs.spaces import ActionScale, observation_spec, taken_key
from slipstream.errors import SlipstreamError
from slipstream.import_path import is_import_path, load_object, search_working_folder
from slipstream.spec import SIM_STATE

EnvFactory = Callable[[], gym.Env[Any, Any]]
PROBE_NAMESPACE = "slipstream/"


def env_factories(
    env: str | EnvFactory | Sequence[EnvFactory], num_envs: int, env_kwargs: Mapping[str, Any]
) -> list[EnvFactory]:
    """One function for each environment of a vector.

    Args:
        env: an id or an import path, a function that makes one environment, or one function for
            each.
        num_envs: how many; with several functions it may be left at 1.
        env_kwargs: for an id or path only, keyword arguments of `gymnasium.make` or the function.

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
        return [partial(_met, env)] * num_envs
    if isinstance(env, Sequence) and env and num_envs in (1, len(env)):
        return [partial(_met, each) for each in env]
    if isinstance(env, Sequence):
        raise SlipstreamError(
            f"num_envs is {num_envs}, but there are {len(env)} functions that make an environment: "
            "leave num_envs out, and give at least one function"
        )
    raise SlipstreamError(
        f"cannot make an environment of {type(env).__name__}: give an id, a function that returns "
        "a gymnasium.Env, or a gymnasium VectorEnv"
    )


def _met(factory: EnvFactory) -> Any:
    env = factory()
    return FirstContact(env, type(env.unwrapped).__name__) if isinstance(env, gym.Env) else env


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
    # Here, before the vector environment meets a space that it cannot batch; and actions first, for
    # whoever has discrete ones would mend the observations in vain.
    ActionScale(env.action_space, recorder.description[0])
    shown = observation_spec(env.observation_space, recorder.description[0])
    if SIM_STATE in shown and not recorder.renders_images:
        raise taken_key(recorder.description[0], SIM_STATE)
    return recorder


def resolve_id(env_id: str) -> str:
    """The id that will be made for the id that was asked for.

    A superseded MuJoCo id is replaced by its v5 successor, with a warning. The import path of a
    function that makes an environment (`my_pkg.envs:make`) counts as an id.

    Raises:
        SlipstreamError: no environment is registered under that id, or nothing lies at that path.
    """
    if own_env(env_id) is not None or is_maniskill(env_id):
        return env_id
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
        env_id: a registered id, `module:id` included, or the import path of a function.
        env_kwargs: keyword arguments of `gymnasium.make` or the function, and `max_episode_steps`.

    Raises:
        SlipstreamError: unknown id, or a package that the environment needs is missing.
    """
    function = own_env(env_id)
    if function is not None:
        from slipstream.envs.own import build_own

        return FirstContact(build_own(env_id, function, env_kwargs), env_id)
    if ":" in env_id:
        search_working_folder()
    if is_maniskill(env_id):
        return ManiSkillEnv(env_id, env_kwargs)
    if env_id.startswith(PROBE_NAMESPACE):
        from slipstream.envs import probe

        probe.register()
    try:
        # The adapter makes its own checks; gymnasium's would run a second time on every step.
        with mujoco.deprecations_muted() if mujoco.is_mujoco(env_id) else nullcontext():
            made = gym.make(env_id, **{"disable_env_checker": True, **env_kwargs})
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
    # Without the module nobody would register it again.
    return FirstContact(made, env_id, goes_by=env_id if ":" in env_id else None)


def own_env(env_id: str) -> Any:
    """What lies at an import path; None where `env_id` is an id that gymnasium knows.

    Raises:
        SlipstreamError: an import path at which nothing lies.
    """
    if not is_import_path(env_id):
        return None
    try:
        return load_object(env_id, "environment")
    except SlipstreamError:
        # `module:Name` is also how gymnasium writes an id without version, registered by importing
        # the module, which has happened by now.
        name = env_id.rpartition(":")[2]
        if name in gym.registry or _unversioned(name) is not None:
            return None
        raise


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
