"""A run's environments: what is collected in, what of it the policy sees."""

import inspect
import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal

import gymnasium as gym
from annotated_types import Ge
from gymnasium.vector import VectorEnv
from tyro.conf import arg

from slipstream.envs.film import FilmedBatch, FilmedEnv, Show
from slipstream.envs.keyword_flags import KEYWORDS, Scalar
from slipstream.envs.making import Added, make_env
from slipstream.envs.maniskill import batch as maniskill_batch
from slipstream.envs.maniskill.single import ManiSkillCameras, ManiSkillEnv
from slipstream.envs.maniskill.tasks import is_maniskill
from slipstream.envs.masks import env_name
from slipstream.envs.mujoco_cameras import MujocoCameras, is_mujoco_env
from slipstream.envs.observation import ObservationConfig, observe
from slipstream.envs.pixels import (
    BlindCameras,
    BlindObservation,
    Cameras,
    ImagesAlone,
    PixelObservation,
    RenderCameras,
    shows_images,
)
from slipstream.envs.registry import build, own_env, resolve_id
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from slipstream.settings import Count, Settings

Obs = Literal["state", "rgb", "rgb+state", "depth", "depth+state", "rgb+depth", "rgb+depth+state"]


@dataclass(frozen=True)
class EnvConfig(Settings, section="env"):
    """The environments that data is collected in."""

    num_envs: Count = 1
    """Environments side by side."""
    parallel: bool = False
    """One process for each environment."""
    physics: str = "cpu"
    """Where a ManiSkill task is simulated: cpu, each environment alone; or a CUDA device (cuda,
    cuda:1), all of them together, and what they show stays there."""
    normalize_obs: bool = False
    """Normalize observations by their running mean and variance, saved with the policy."""
    partial_reset: bool = True
    """Of a ManiSkill task, while training: let success and failure end an episode. Without it only
    the time limit does, so that a policy also learns to stay where it succeeded, at more steps."""
    max_episode_steps: Count | None = None
    """Time limit in steps; None keeps the environment's own."""
    kwargs: Annotated[dict[str, Scalar], KEYWORDS] = field(default_factory=dict)
    """Keyword arguments of the environment itself, such as `--env.kwargs ctrl_cost_weight 0.2`; in
    place of those that a preset gives."""
    obs: Annotated[Obs, arg(prefix_name=False)] = "state"
    """What the policy sees: the state, images in its place, or both. Of a ManiSkill task the state
    beside images is what a robot knows of itself (joints, tool)."""
    image_size: Annotated[int, Ge(8)] = 64
    """Height and width of images, in pixels."""
    camera: str | None = None
    """Which camera; None takes MuJoCo's `track`, and all of a ManiSkill task's."""
    blind: bool = False
    """Blacken every image, for everybody: the control that tells what can be done without looking.
    Nothing is rendered then."""
    observe: ObservationConfig = field(default_factory=ObservationConfig)
    """What the policy sees of what there is."""
    prev_action: bool = False
    """Show the policy its previous action, too (zeros at an episode's start)."""
    prev_reward: bool = False
    """Show the policy the previous reward, too (zero at an episode's start)."""
    differences: bool | None = None
    """Show policies by how much each vector changed since the last step, too (zeros at an episode's
    start), normalized: velocities, where only positions are seen. None: where a mask hides some."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for settings that exclude each other."""
        super().__post_init__()
        self._check_physics()
        if "state" not in self.parts and (self.hides_parts or self.observe.noise > 0):
            raise SlipstreamError(
                f"mask and env.observe.noise change the state, but obs is '{self.obs}'; use "
                f"'{self.obs}+state', or leave them out"
            )

    def _check_physics(self) -> None:
        if self.physics == "cpu":
            return
        if re.fullmatch(r"cuda(:\d+)?", self.physics) is None:
            raise SlipstreamError(f"env.physics is '{self.physics}'; use cpu, cuda or cuda:1")
        if self.parallel:
            raise SlipstreamError(
                f"env.parallel is on, but env.physics {self.physics} simulates all environments in "
                "one process; leave one of them out"
            )
        if replace(self.observe, mask="none").hides:
            raise SlipstreamError(
                f"env.observe.noise, drop and delay are not made on a GPU, but env.physics is "
                f"{self.physics}; leave them out, or use --env.physics cpu"
            )

    @property
    def hides_parts(self) -> bool:
        """Whether a mask hides components of the state."""
        return self.observe.mask != "none"

    @property
    def added(self) -> Added:
        """What observations are added, as `make_env` takes it."""
        return {
            "prev_action": self.prev_action,
            "prev_reward": self.prev_reward,
            "differences": self.hides_parts if self.differences is None else self.differences,
        }

    @property
    def parts(self) -> frozenset[str]:
        """What `obs` is made of."""
        return frozenset(self.obs.split("+"))


def open_env(
    env_id: str,
    config: EnvConfig,
    num_envs: int,
    parallel: bool = False,
    privileged: bool = False,
    evaluation: bool = False,
    on_demand: bool = False,
) -> VecEnv:
    """Environments of a run.

    Args:
        env_id: a registered id.
        config: what the policy sees, and the time limit.
        num_envs: how many.
        parallel: one process for each.
        privileged: show the whole, undisturbed state beside what the policy sees, as "privileged".
        evaluation: follow the benchmark's protocol for evaluation, where it has one (ManiSkill).
        on_demand: render no image, show the simulator's state as "sim_state" instead, of which
            `pixels.render_state` makes the same image; where it cannot, render all the same.

    Raises:
        SlipstreamError: as `make_env`; a mask that does not fit the environment; images that it
            does not have; a GPU that is asked for and cannot be used.
    """
    if config.physics != "cpu":
        batch = _open_batch(env_id, config, num_envs, privileged, evaluation)
        return make_env(batch, **config.added)
    make = partial(open_single, resolve_id(env_id), config, privileged, evaluation, on_demand)
    # A process that is forked after images were rendered could not render any.
    fork = config.obs == "state" and not is_maniskill(env_id)
    return make_env(
        make,
        num_envs=num_envs,
        parallel=parallel,
        context=None if fork else "forkserver",
        **config.added,
    )


def open_filmed(
    env_id: str, config: EnvConfig, show: Show, size: int, privileged: bool = False
) -> VecEnv:
    """One environment for evaluation, whose first episode is shown frame by frame.

    Args:
        env_id: a registered id.
        config: what the policy sees, and the time limit.
        show: takes every frame, with the frames a second.
        size: height and width in pixels, where the environment does not have a size of its own.
        privileged: as in `open_env`.

    Raises:
        SlipstreamError: as `open_env`. Whether frames can be had is known at the first one.
    """
    if config.physics != "cpu":
        batch = _open_batch(env_id, config, 1, privileged, evaluation=True, view_size=size)
        filmed = FilmedBatch(batch, show)
        return make_env(filmed, **config.added)

    def make() -> gym.Env[Any, Any]:
        env = open_single(resolve_id(env_id), config, privileged, evaluation=True, view_size=size)
        camera = None if isinstance(env.unwrapped, ManiSkillEnv) else config.camera
        return FilmedEnv(env, show, size, camera)

    return make_env(make, **config.added)


def _open_batch(
    env_id: str,
    config: EnvConfig,
    num_envs: int,
    privileged: bool,
    evaluation: bool,
    view_size: int = 320,
) -> VectorEnv[Any, Any, Any]:
    """Environments that are simulated together on a CUDA device."""
    if not is_maniskill(env_id):
        raise SlipstreamError(
            f"env.physics is {config.physics}, but {env_id} is no ManiSkill task, which alone are "
            "simulated on a GPU; use --env.physics cpu"
        )
    return maniskill_batch.ManiSkillBatch(
        env_id,
        num_envs,
        maniskill_batch.sim_backend(config.physics),
        _task_kwargs(config),
        parts=config.parts,
        mask=config.observe.mask,
        privileged=privileged,
        blind=config.blind,
        image_size=config.image_size,
        camera=config.camera,
        evaluation=evaluation,
        view_size=view_size,
        partial_reset=config.partial_reset,
    )


def _task_kwargs(config: EnvConfig) -> dict[str, Any]:
    limit = config.max_episode_steps
    return {**config.kwargs, **({} if limit is None else {"max_episode_steps": limit})}


def open_single(
    env_id: str,
    config: EnvConfig,
    privileged: bool = False,
    evaluation: bool = False,
    on_demand: bool = False,
    view_size: int | None = None,
) -> gym.Env[Any, Any]:
    """One environment, as `open_env` holds several; with a view for people where that has a size.

    Args:
        env_id: a registered id.
        config: what the policy sees, and the time limit.
        privileged: as in `open_env`.
        evaluation: as in `open_env`.
        on_demand: as in `open_env`.
        view_size: height and width in pixels of what its `render` is to return, where that can be
            chosen; None where nobody will look.
    """
    kwargs = _task_kwargs(config)
    env, visible = _build(env_id, config, kwargs, evaluation, view_size)
    textures = config.parts - {"state"}
    has_images = shows_images(env)
    if textures and has_images:
        env = _own_images(env, config, textures)
    if has_images or not textures:
        return observe(_blinded(env) if config.blind else env, config.observe, privileged)
    cameras = _cameras(env, config, sorted(textures, reverse=True))
    if config.blind:
        cameras = BlindCameras(cameras)
    show_state = "state" in config.parts
    look = partial(PixelObservation, cameras=cameras, show_state=show_state, on_demand=on_demand)
    return observe(env, config.observe, privileged, visible if show_state else None, look)


def _build(
    env_id: str,
    config: EnvConfig,
    kwargs: dict[str, Any],
    evaluation: bool,
    view_size: int | None,
) -> tuple[gym.Env[Any, Any], tuple[int, ...] | None]:
    """The environment, and the components of its state that may be shown beside images."""
    if is_maniskill(env_id):
        size = {} if view_size is None else {"view_size": view_size}
        env = ManiSkillEnv(
            env_id,
            kwargs,
            config.image_size,
            evaluation,
            partial_reset=config.partial_reset,
            **size,
        )
        return env, env.proprioception
    if (config.obs != "state" or view_size is not None) and _takes_render_mode(env_id):
        kwargs = {"render_mode": "rgb_array", **kwargs}
    return build(env_id, kwargs), None


def _takes_render_mode(env_id: str) -> bool:
    """Whether a task is made with `render_mode`: every one with an id, a function that names it."""
    function = own_env(env_id)
    if function is None:
        return True
    return callable(function) and "render_mode" in inspect.signature(function).parameters


def _blinded(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    if not shows_images(env):
        raise SlipstreamError(
            f"env.blind is for images, but {env_name(env)} shows its state alone; use --obs rgb, "
            "or leave it out"
        )
    return BlindObservation(env)


def _own_images(
    env: gym.Env[Any, Any], config: EnvConfig, textures: frozenset[str]
) -> gym.Env[Any, Any]:
    """An environment that shows images of its own, alone where no state is asked for."""
    useless = [
        f"{name} {value}"
        for name, value, changes in (
            ("env.camera", config.camera, config.camera is not None),
            ("env.image_size", config.image_size, config.image_size != EnvConfig.image_size),
            ("obs", config.obs, textures != {"rgb"}),
        )
        if changes
    ]
    if useless:
        raise SlipstreamError(
            f"{env_name(env)} shows images of its own, which {' and '.join(useless)} cannot "
            "change; leave it out"
        )
    return env if "state" in config.parts else ImagesAlone(env)


def _cameras(env: gym.Env[Any, Any], config: EnvConfig, textures: list[str]) -> Cameras:
    size, camera = config.image_size, config.camera
    if isinstance(env.unwrapped, ManiSkillEnv):
        return ManiSkillCameras(env.unwrapped, textures, camera)
    if textures != ["rgb"]:
        raise SlipstreamError(
            f"obs is '{config.obs}', but only ManiSkill tasks show depth; use 'rgb' or 'rgb+state'"
        )
    if is_mujoco_env(env):
        return MujocoCameras(env, size, camera)
    if camera is not None:
        raise SlipstreamError(
            f"env.camera is '{camera}', but {env_name(env)} has no cameras to choose from; "
            "leave it out"
        )
    return RenderCameras(env, size)
