"""A run's environments: what is collected in, what of it the policy sees."""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import gymnasium as gym
from tyro.conf import arg

from slipstream.envs.keyword_flags import KEYWORDS, Scalar
from slipstream.envs.maniskill import ManiSkillCameras, ManiSkillEnv, is_maniskill
from slipstream.envs.masks import env_name
from slipstream.envs.observation import ObservationConfig, observe
from slipstream.envs.pixels import (
    Cameras,
    MujocoCameras,
    PixelObservation,
    RenderCameras,
    is_mujoco_env,
    shows_images,
)
from slipstream.envs.registry import build, own_env, resolve_id
from slipstream.envs.vec_env import VecEnv, make_env
from slipstream.errors import SlipstreamError

Obs = Literal["state", "rgb", "rgb+state", "depth", "depth+state", "rgb+depth", "rgb+depth+state"]


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
    kwargs: Annotated[dict[str, Scalar], KEYWORDS] = field(default_factory=dict)
    """Keyword arguments of the environment itself, such as `--env.kwargs ctrl_cost_weight 0.2`; in
    place of those that a preset gives."""
    obs: Annotated[Obs, arg(prefix_name=False)] = "state"
    """What the policy sees: the state, images in its place, or both. Of a ManiSkill task the state
    beside images is what a robot knows of itself (joints, tool)."""
    image_size: int = 64
    """Height and width of images, in pixels."""
    camera: str | None = None
    """Which camera; None takes MuJoCo's `track`, and all of a ManiSkill task's."""
    observe: ObservationConfig = field(default_factory=ObservationConfig)
    """What the policy sees of the state."""
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
        if self.image_size < 8:
            raise SlipstreamError(f"env.image_size is {self.image_size}; it must be at least 8")
        if "state" not in self.parts and self.observe != ObservationConfig():
            raise SlipstreamError(
                f"mask and env.observe change the state, but obs is '{self.obs}'; use "
                f"'{self.obs}+state', or leave them out"
            )

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
            `pixels.render_state` makes the same image.

    Raises:
        SlipstreamError: as `make_env`; a mask that does not fit the environment; images that it
            does not have.
    """
    make = partial(open_single, resolve_id(env_id), config, privileged, evaluation, on_demand)
    # A process that is forked after images were rendered could not render any.
    fork = config.obs == "state" and not is_maniskill(env_id)
    return make_env(
        make,
        num_envs=num_envs,
        parallel=parallel,
        prev_action=config.prev_action,
        prev_reward=config.prev_reward,
        context=None if fork else "forkserver",
    )


def open_single(
    env_id: str,
    config: EnvConfig,
    privileged: bool = False,
    evaluation: bool = False,
    on_demand: bool = False,
) -> gym.Env[Any, Any]:
    """One environment, as `open_env` holds several."""
    limit = config.max_episode_steps
    kwargs = {**config.kwargs, **({} if limit is None else {"max_episode_steps": limit})}
    env, visible = _build(env_id, config, kwargs, evaluation)
    textures = config.parts - {"state"}
    if not textures or shows_images(env):
        return observe(env, config.observe, privileged)
    cameras = _cameras(env, config, sorted(textures, reverse=True))
    env = observe(env, config.observe, privileged, visible if "state" in config.parts else None)
    return PixelObservation(env, cameras, "state" in config.parts, on_demand)


def _build(
    env_id: str, config: EnvConfig, kwargs: dict[str, Any], evaluation: bool
) -> tuple[gym.Env[Any, Any], tuple[int, ...] | None]:
    """The environment, and the components of its state that may be shown beside images."""
    if is_maniskill(env_id):
        env = ManiSkillEnv(env_id, kwargs, config.image_size, evaluation)
        return env, env.proprioception
    if config.obs != "state" and own_env(env_id) is None:
        kwargs = {"render_mode": "rgb_array", **kwargs}
    return build(env_id, kwargs), None


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
