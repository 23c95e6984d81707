"""Making one of ManiSkill's environments; what is wrong or missing is told in one line."""

import dataclasses
import importlib
import importlib.util
import logging
import os
import re
import urllib.error
import warnings
from collections.abc import Mapping
from typing import Any, cast

import gymnasium as gym

from slipstream.envs.maniskill.tasks import check_assets, missing_files
from slipstream.errors import SlipstreamError

PACKAGES = "scripts/install-system-packages maniskill"
"""Installs the Vulkan driver."""

_CONTROL_MODE = "pd_joint_delta_pos"


def make_task(
    env_id: str,
    env_kwargs: Mapping[str, Any],
    new_scene: bool,
    image_size: int,
    view_size: int,
    sim_backend: str = "physx_cpu",
    num_envs: int = 1,
) -> gym.Env[Any, Any]:
    """ManiSkill's environment, whose observations are batches (N, *) of tensors.

    Args:
        env_id: ManiSkill's id.
        env_kwargs: keyword arguments of the task, and `max_episode_steps`.
        new_scene: build the scene anew for every episode.
        image_size: height and width of the cameras' images in pixels.
        view_size: height and width of what `render` returns, in pixels.
        sim_backend: what simulates: "physx_cpu", or "physx_cuda" (with ":k" for device k).
        num_envs: how many; one on the CPU.

    Raises:
        SlipstreamError: as `ManiSkillEnv`.
    """
    kwargs = {
        "render_backend": None,
        "control_mode": _CONTROL_MODE,
        "reconfiguration_freq": int(new_scene),
        "sensor_configs": {"width": image_size, "height": image_size, "shader_pack": "minimal"},
        "human_render_camera_configs": {"width": view_size, "height": view_size},
        **env_kwargs,
    }
    return _make(env_id, kwargs, {"sim_backend": sim_backend, "num_envs": num_envs})


def task_spec(name: str, task: gym.Env[Any, Any]) -> Any:
    """Gymnasium's spec of a task, with the time limit that it has."""
    return dataclasses.replace(gym.spec(name), max_episode_steps=_time_limit(task), kwargs={})


def _make(env_id: str, kwargs: dict[str, Any], batch: Mapping[str, Any]) -> gym.Env[Any, Any]:
    """ManiSkill's environment; the mistakes of `kwargs` in one line."""
    for name in batch:
        if kwargs.get(name, "auto") not in (None, "auto", "cpu", "physx_cpu"):
            raise SlipstreamError(
                f"{env_id} is made with {name} {kwargs[name]!r} in env.kwargs: leave it out, and "
                "use --env.num-envs N for several environments, with --env.physics cuda to "
                "simulate them on a GPU or --env.parallel to simulate them on the CPU"
            )
    # Without the first, a missing file is asked for on the terminal.
    os.environ.setdefault("MS_SKIP_ASSET_DOWNLOAD_PROMPT", "1")
    os.environ.setdefault("MS_RENDERER_LOG_LEVEL", "critical")
    os.environ.setdefault("LP_NUM_THREADS", "0")  # as in `gl.open_context`
    if importlib.util.find_spec("mani_skill") is None:
        raise SlipstreamError(
            f"{env_id} is a ManiSkill task, and ManiSkill is not installed: make setup-maniskill"
        )
    importlib.import_module("mani_skill.envs")  # registers the tasks
    importlib.import_module("mani_skill").logger.setLevel(logging.ERROR)
    check_assets(env_id, kwargs)
    kwargs["render_backend"] = kwargs["render_backend"] or _render_backend()
    arguments = {
        "obs_mode": "state",
        "render_mode": "rgb_array",
        "disable_env_checker": True,
        **kwargs,
        **batch,
    }
    warnings.filterwarnings("ignore", ".*precision lowered by casting")  # in ManiSkill's spaces
    try:
        return gym.make(env_id, **arguments)
    except RuntimeError as error:
        named = re.search(r"download_asset (\w+)", str(error))
        if named is not None:
            raise SlipstreamError(missing_files(env_id, [named[1]], named[1])) from error
        if re.search(r"vk::|rendering device|physical device|Vulkan", str(error)) is None:
            raise
        raise SlipstreamError(
            f"{env_id} needs a Vulkan device, even to show its state only ({_line(error)}): "
            f"{PACKAGES}; `slipstream doctor` tells what is there"
        ) from error
    except AssertionError as error:
        if "supported modes" not in str(error):
            raise
        asked = kwargs["control_mode"]
        if asked == _CONTROL_MODE:  # not the user's choice: take the robot's first
            return _make(env_id, {**kwargs, "control_mode": None}, batch)
        raise SlipstreamError(
            f"{env_id} has no control mode '{asked}': choose one of {_modes(error)}"
        ) from error
    except (FileNotFoundError, urllib.error.URLError) as error:
        raise SlipstreamError(
            missing_files(env_id, [env_id], str(error.filename or error))
        ) from error
    except ImportError as error:
        raise SlipstreamError(f"{env_id} cannot be made: {_line(error)}") from error
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise SlipstreamError(f"{env_id} cannot be made with {kwargs}: {_line(error)}") from error


def _render_backend() -> str:
    try:
        importlib.import_module("sapien").Device("cuda")
    except RuntimeError:
        return "cpu"
    return "gpu"


def _time_limit(env: gym.Env[Any, Any]) -> int | None:
    while isinstance(env, gym.Wrapper):
        if type(env).__name__ == "TimeLimitWrapper":
            return cast("Any", env)._max_episode_steps
        env = env.env
    return None


def _modes(error: Exception) -> str:
    return str(error).partition("supported modes: ")[2].strip("[]").replace("'", "")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
