"""ManiSkill 3 tasks as plain Gymnasium environments on the CPU, with images on demand.

Physics runs on the CPU, one environment a process at most; images are rendered on a GPU where
there is one, else by Mesa's Vulkan driver. https://github.com/haosulab/ManiSkill
"""

import dataclasses
import importlib
import importlib.util
import inspect
import logging
import os
import re
import sys
import urllib.error
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np

from slipstream.envs.maniskill_views import camera_names, image_spaces, look
from slipstream.envs.pixels import Images
from slipstream.errors import SlipstreamError

PACKAGES = "scripts/install-system-packages maniskill"
"""Installs the Vulkan driver."""

_CONTROL_MODE = "pd_joint_delta_pos"

# All are of version 1. Known by name, so that one can be told what is missing where ManiSkill is.
_NAMES = frozenset(
    """
    AnymalC-Reach AnymalC-Spin ArchitecTHOR_SceneManipulation AssemblingKits DrawSVG
    DrawTriangle Empty FMBAssembly1Easy InsertFlower LiftPegUpright MS-AntRun MS-AntWalk
    MS-CartpoleBalance MS-CartpoleSwingUp MS-HopperHop MS-HopperStand MS-HumanoidRun
    MS-HumanoidStand MS-HumanoidWalk OpenCabinetDoor OpenCabinetDrawer PegInsertionSide
    PickClutterYCB PickCube PickCubeSO100 PickCubeWidowXAI PickSingleYCB PlaceSphere
    PlugCharger PokeCube PullCube PullCubeTool PushCube PushT PutCarrotOnPlateInScene
    PutEggplantInBasketScene PutSpoonOnTableClothInScene
    ReplicaCADPrepareGroceriesTrain_SceneManipulation
    ReplicaCADPrepareGroceriesVal_SceneManipulation ReplicaCADSetTableTrain_SceneManipulation
    ReplicaCADSetTableVal_SceneManipulation ReplicaCADTidyHouseTrain_SceneManipulation
    ReplicaCADTidyHouseVal_SceneManipulation ReplicaCAD_SceneManipulation RoboCasaKitchen
    RollBall RotateSingleObjectInHandLevel0 RotateSingleObjectInHandLevel1
    RotateSingleObjectInHandLevel2 RotateSingleObjectInHandLevel3 RotateValveLevel0
    RotateValveLevel1 RotateValveLevel2 RotateValveLevel3 RotateValveLevel4 SO100GraspCube
    SceneManipulation StackCube StackGreenCubeOnYellowCubeBakedTexInScene StackPyramid
    TableTopFreeDraw TriFingerRotateCubeLevel0 TriFingerRotateCubeLevel1
    TriFingerRotateCubeLevel2 TriFingerRotateCubeLevel3 TriFingerRotateCubeLevel4 TurnFaucet
    TwoRobotPickCube TwoRobotStackCube UnitreeG1PlaceAppleInBowl UnitreeG1Stand
    UnitreeG1TransportBox UnitreeGo2-Reach UnitreeH1Stand
    """.split()  # noqa: SIM905 - one a line would be longer than the rest
)

# What ManiSkill does not say of its own tasks: id -> what to download.
_UNDECLARED_ASSETS = {
    r"ArchitecTHOR_.*": "AI2THOR",
    r"ReplicaCAD_.*|SceneManipulation-v1": "ReplicaCAD",
    r"ReplicaCAD.+_.*": "ReplicaCADRearrange",
}

# Tasks whose episodes depend on the episode before unless each has a new scene (contact forces in
# the first observation, the solver's memory), so that a saved one could not be replayed. A scene
# costs 0.1 to 0.2 s of CPU.
_NEEDS_NEW_SCENE = re.compile(
    r"(MS-.+|PushT|PlugCharger|UnitreeG1.+|RotateSingleObjectInHand.+|Empty)-v1"
)

# What would tell, beside the image, where things are that the image is to be looked at for: the
# goal of PullCube lies at a fixed distance from where its cube starts.
_TELLS = {"PullCube-v1": ("extra.goal_pos",)}


# Tasks of an arm over a table whose tool can be told where to go ("pd_ee_delta_pos").
_TABLETOP_ARM = frozenset(
    """
    LiftPegUpright PegInsertionSide PickCube PlaceSphere PlugCharger PokeCube PullCube
    PullCubeTool PushCube PushT RollBall StackCube StackPyramid
    """.split()  # noqa: SIM905 - as above
)


def is_tabletop_arm(env_id: str) -> bool:
    """Whether the id is a ManiSkill task whose arm knows the control mode `pd_ee_delta_pos`."""
    return env_id.rpartition(":")[2].removesuffix("-v1") in _TABLETOP_ARM


def is_maniskill(env_id: str) -> bool:
    """Whether the id is a ManiSkill task: one of its own, or one that a `module:` registers."""
    module, _, name = env_id.rpartition(":")
    if name.removesuffix("-v1") in _NAMES:
        return True
    if module and importlib.util.find_spec("mani_skill") is not None:
        with suppress(ImportError):  # is told of where the environment is made
            importlib.import_module(module)
    registration = sys.modules.get("mani_skill.utils.registration")
    return registration is not None and name in registration.REGISTERED_ENVS


class ManiSkillEnv(gym.Env[np.ndarray, np.ndarray]):
    """One ManiSkill task: the full state as a float32 vector, `info["success"]`.

    Every episode follows from a seed of its own, drawn from `np_random` where `reset` is given
    none, so that it can be replayed from that generator's state.

    While training, success cuts the episode: it is reported as truncated, for nothing is lost in
    it, and a policy that is paid for every step would else learn to avoid it. Failure terminates.
    In evaluation (ManiSkill's protocol) neither ends the episode, and each has a new scene.

    Attributes:
        base: ManiSkill's own environment.
        proprioception: components of the state that ManiSkill shows beside images (joints, tool,
            goals that cannot be seen), without what would give away what is to be looked for.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium's own
    render_mode = "rgb_array"

    def __init__(
        self,
        env_id: str,
        env_kwargs: Mapping[str, Any] | None = None,
        image_size: int = 64,
        evaluation: bool = False,
        view_size: int = 320,
    ) -> None:
        """Make the task.

        Args:
            env_id: ManiSkill's id.
            env_kwargs: keyword arguments of the task (`control_mode`, `robot_uids`, `reward_mode`,
                `reconfiguration_freq`, ...), and `max_episode_steps`.
            image_size: height and width of the cameras' images in pixels.
            evaluation: follow ManiSkill's protocol for evaluation.
            view_size: height and width of what `render` returns, in pixels.

        Raises:
            SlipstreamError: ManiSkill, a Vulkan driver or the task's files are missing, with the
                command that gets them; or the task cannot be made with these arguments.
        """
        name = env_id.rpartition(":")[2]
        new_scene = evaluation or bool(_NEEDS_NEW_SCENE.fullmatch(name))
        task = make_task(name, env_kwargs or {}, new_scene, image_size, view_size)
        wrappers: Any = importlib.import_module("mani_skill.utils.wrappers")
        self._env: gym.Env[Any, Any] = wrappers.CPUGymWrapper(task, ignore_terminations=evaluation)
        self.base: Any = task.unwrapped
        self.spec = task_spec(name, task)
        self.observation_space = _vector(self._env.observation_space)
        self.action_space = cast("gym.spaces.Box", self._env.action_space)
        self.proprioception = proprioception(self.base, name)
        self.metadata = {**self.metadata, "render_fps": self.base.control_freq}
        self.moved = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        obs, info = self._env.reset(seed=seed % 2**32, options=options)
        self.moved = False
        return np.asarray(obs, np.float32), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        if self.moved:
            raise RuntimeError("render_state moved the scene: reset before the next step")
        obs, reward, terminated, truncated, info = self._env.step(action)
        if terminated and info.get("success") and not info.get("fail"):
            terminated, truncated = False, True
        return np.asarray(obs, np.float32), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8, the view that ManiSkill means for people."""
        return np.asarray(self._env.render())

    def close(self) -> None:
        """Release the scene."""
        self._env.close()


class ManiSkillCameras:
    """Renders a ManiSkill task: all of its sensors side by side as channels, or one of them."""

    def __init__(
        self, env: ManiSkillEnv, textures: Sequence[str] = ("rgb",), camera: str | None = None
    ) -> None:
        """Choose what to render.

        Args:
            env: the task.
            textures: observation keys, of `rgb` and `depth`. A depth of d metres is shown as
                255 d / (1 + d), in steps of 9 mm at half a metre; 0 is where there is nothing.
            camera: one of the task's sensors; None takes all.

        Raises:
            SlipstreamError: no such sensor, or the task has none.
        """
        self._env, self._textures = env, tuple(textures)
        self._names = camera_names(env.base, camera)
        # Before the first episode nothing is in its place, but shapes are what they will be.
        self._parts = [(key, part.shape[-1]) for key, part in self._state_parts()]

    @property
    def spaces(self) -> Mapping[str, gym.spaces.Box]:
        """Images of all cameras, 3 channels each in `rgb` and 1 in `depth`."""
        return image_spaces(self._env.base, self._names, self._textures)

    @property
    def state_size(self) -> int:
        """Poses and velocities of everything that moves."""
        return sum(size for _, size in self._parts)

    def render(self) -> Images:
        """Images of the present."""
        seen = look(self._env.base, self._names, self._textures)
        images = {key: image[0].numpy(force=True) for key, image in seen.items()}
        return {key: np.ascontiguousarray(image) for key, image in images.items()}

    def sim_state(self) -> np.ndarray:
        """Poses and velocities of everything that moves, float32 numbers in float64."""
        parts = [part[0].numpy(force=True) for _, part in self._state_parts()]
        return np.concatenate(parts, dtype=np.float64)

    def render_state(self, state: np.ndarray) -> Images:
        """Images of a stored state; afterwards the environment must be reset before it is stepped.

        What a new scene would change (the shape of a peg) is no part of the state.
        """
        import torch

        row = torch.as_tensor(state, dtype=torch.float32)[None]
        tree: dict[str, dict[str, Any]] = {}
        for ((kind, name), _), part in zip(
            self._parts, row.split([size for _, size in self._parts], -1), strict=True
        ):
            tree.setdefault(kind, {})[name] = part
        self._env.base.set_state_dict(tree)
        self._env.moved = True
        return self.render()

    def _state_parts(self) -> Iterator[tuple[tuple[str, str], Any]]:
        """((kind, name), (1, n)) for everything that moves."""
        state = self._env.base.get_state_dict()
        for kind in ("actors", "articulations"):
            for name, part in state.get(kind, {}).items():
                yield (kind, name), part

    def close(self) -> None:
        """Nothing to release: the cameras belong to the scene."""


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
    _check_assets(env_id, kwargs)
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
            raise SlipstreamError(_missing(env_id, [named[1]], named[1])) from error
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
        raise SlipstreamError(_missing(env_id, [env_id], str(error.filename or error))) from error
    except ImportError as error:
        raise SlipstreamError(f"{env_id} cannot be made: {_line(error)}") from error
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise SlipstreamError(f"{env_id} cannot be made with {kwargs}: {_line(error)}") from error


def _check_assets(name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise SlipstreamError where files of the task or its robot have not been downloaded."""
    agents: Any = importlib.import_module("mani_skill.agents.registration").REGISTERED_AGENTS
    tasks: Any = importlib.import_module("mani_skill.utils.registration").REGISTERED_ENVS
    assets: Any = importlib.import_module("mani_skill.utils.assets")
    if name not in tasks:
        raise SlipstreamError(f"ManiSkill has no task '{name}'; it has {', '.join(tasks)}")
    task = tasks[name]
    robots = kwargs.get("robot_uids")
    if robots is None:
        parameter = inspect.signature(task.cls.__init__).parameters.get("robot_uids")
        robots = None if parameter is None else parameter.default
    groups = [*(task.asset_download_ids or ())]
    for robot in robots if isinstance(robots, tuple | list) else (robots,):
        if isinstance(robot, str) and robot in agents:
            groups += agents[robot].asset_download_ids
    missing = [group for group in groups if not _is_there(assets, group)]
    if missing:
        raise SlipstreamError(_missing(name, missing, ", ".join(missing)))


def _is_there(assets: Any, group: str) -> bool:
    sources = [group]
    if group not in assets.DATA_SOURCES:
        sources = assets.expand_data_group_into_individual_data_source_ids(group)
    for source in map(assets.DATA_SOURCES.__getitem__, sources):
        path = Path(source.output_dir) / source.target_path
        # A download that failed leaves an empty folder.
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return False
    return True


def _missing(name: str, groups: Sequence[str], what: str) -> str:
    for pattern, group in _UNDECLARED_ASSETS.items():
        if re.fullmatch(pattern, name):
            groups = [group]
    commands = " && ".join(f"python -m mani_skill.utils.download_asset {each}" for each in groups)
    return f"{name} needs files that are not here ({what}): {commands}"


def _render_backend() -> str:
    try:
        importlib.import_module("sapien").Device("cuda")
    except RuntimeError:
        return "cpu"
    return "gpu"


def proprioception(base: Any, name: str) -> tuple[int, ...]:
    """Components of the flattened state that ManiSkill shows beside images, less what tells."""
    info, tells = base.get_info(), _TELLS.get(name, ())
    full = _leaves(base._get_obs_state_dict(info), base.num_envs)
    # Some tasks ask the one, some the other, whether they are to show their state.
    mode, struct = base._obs_mode, base.obs_mode_struct
    base._obs_mode = "rgb"
    base.obs_mode_struct = dataclasses.replace(struct, state=False, state_dict=False)
    shown = {"agent": base._get_obs_agent(), "extra": base._get_obs_extra(info)}
    shown = _leaves(shown, base.num_envs)
    base._obs_mode, base.obs_mode_struct = mode, struct
    kept: list[int] = []
    start = 0
    for name, size in full.items():
        if name in shown and name not in tells:
            kept += range(start, start + size)
        start += size
    return tuple(kept)


def _leaves(tree: Mapping[str, Any], num_envs: int, prefix: str = "") -> dict[str, int]:
    """Path -> number of components, in the order in which ManiSkill flattens an observation."""
    leaves: dict[str, int] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, num_envs, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = int(np.prod(np.shape(value))) // num_envs
    return leaves


def _vector(space: gym.Space[Any]) -> gym.spaces.Box:
    return gym.spaces.Box(-np.inf, np.inf, space.shape, np.float32)


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
