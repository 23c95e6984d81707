"""Images of environments, rendered while stepping or on demand from a stored simulator state.

A wrapper shows `{"rgb": (H, W, C) uint8}` and, where wanted, the state beside it. Where the
simulator can be put into a state, it can show that state in place of the image: a few numbers a row
in place of thousands, of which `render_state` makes the very same pixels later, for the rows that
are used.
"""

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, SupportsFloat, cast

import gymnasium as gym
import numpy as np

from slipstream.envs.gl import open_context
from slipstream.envs.masks import env_name
from slipstream.errors import SlipstreamError
from slipstream.spec import SIM_STATE

Images = dict[str, np.ndarray]


class Cameras(Protocol):
    """Renders one environment."""

    @property
    def spaces(self) -> Mapping[str, gym.spaces.Box]:
        """Observation key -> the space of its images."""
        ...

    @property
    def state_size(self) -> int:
        """Length of the state that an image can be made of, 0 if it cannot."""
        ...

    def render(self) -> Images:
        """Images of the present, key -> (H, W, C)."""
        ...

    def sim_state(self) -> np.ndarray:
        """(state_size,) float64, the simulator's present state."""
        ...

    def render_state(self, state: np.ndarray) -> Images:
        """Images of a state that `sim_state` returned, equal to those of `render` then."""
        ...

    def close(self) -> None:
        """Release what rendering holds."""
        ...


class PixelObservation(gym.Wrapper[Any, Any, Any, Any]):
    """Shows images, in place of the state or beside it.

    The observation is a dict: the cameras' keys (`rgb`), `state` if it is wanted, `privileged` if
    the wrapped environment shows it. With `on_demand` nothing is rendered: `sim_state` (n,) float64
    stands in for the images.

    Attributes:
        cameras: render the environment.
        rendering: False shows black images, which cost nothing, to those who do not look at them.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        cameras: Cameras,
        show_state: bool = False,
        on_demand: bool = False,
    ) -> None:
        """Describe the observation.

        Args:
            env: shows a vector, or a dict of `state` and others.
            cameras: of that environment.
            show_state: keep the vector, as `state`.
            on_demand: show the simulator's state in place of images, where they can be made of
                it; else they are rendered all the same.
        """
        super().__init__(env)
        on_demand = on_demand and cameras.state_size > 0
        self.cameras = cameras
        self.rendering = True
        self._show_state, self._on_demand = show_state, on_demand
        parts = env.observation_space
        shown: dict[str, gym.Space[Any]] = dict(
            parts.items() if isinstance(parts, gym.spaces.Dict) else [("state", parts)]
        )
        if not show_state:
            shown.pop("state", None)
        if on_demand:
            size = (cameras.state_size,)
            shown[SIM_STATE] = gym.spaces.Box(-np.inf, np.inf, size, np.float64)
        else:
            shown.update(cameras.spaces)
        self.observation_space = gym.spaces.Dict(shown)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Images, dict[str, Any]]:
        """Begin an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._observation(obs), info

    def step(self, action: Any) -> tuple[Images, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._observation(obs), reward, terminated, truncated, info

    def _observation(self, obs: Any) -> Images:
        parts = dict(obs) if isinstance(obs, Mapping) else {"state": obs}
        if not self._show_state:
            parts.pop("state", None)
        if self._on_demand:
            return {**parts, SIM_STATE: self.cameras.sim_state()}
        return {**parts, **(self.cameras.render() if self.rendering else black(self.cameras))}

    @property
    def image_spaces(self) -> dict[str, gym.spaces.Box]:
        """Observation key -> the space of the images that are shown, or stood in for."""
        return dict(self.cameras.spaces)

    def render_states(self, states: np.ndarray) -> Images:
        """Images of stored states (R, n): key -> (R, H, W, C); see `render_state`."""
        images = [render_state(self, state) for state in states]
        return {key: np.stack([image[key] for image in images]) for key in self.image_spaces}

    def close(self) -> None:
        """Release the cameras and the environment."""
        self.cameras.close()
        super().close()


def sim_state(env: gym.Env[Any, Any]) -> np.ndarray:
    """The state of which `render_state` makes the present images: (n,) float64.

    Args:
        env: opened with images (see `PixelObservation`), in any wrappers.

    Raises:
        SlipstreamError: it shows no images, or its simulator cannot be put into a state.
    """
    cameras = _cameras(env)
    _state_size(cameras, env)
    return cameras.sim_state()


def render_state(env: gym.Env[Any, Any], state: np.ndarray) -> Images:
    """The images of a stored state, pixel for pixel those that were to be seen in it.

    Args:
        env: of the same id and configuration as the one that `state` is from; it need not be in
            an episode. MuJoCo's episode is not disturbed, a ManiSkill one must be reset afterwards.
        state: (n,) float64, from `sim_state`.

    Returns:
        Key -> (H, W, C), such as `{"rgb": (64, 64, 3) uint8}`.

    Raises:
        SlipstreamError: as `sim_state`, or a state of another length.
    """
    cameras = _cameras(env)
    size = _state_size(cameras, env)
    if np.shape(state) != (size,):
        raise SlipstreamError(
            f"a simulator state of {env_name(env)} has the shape ({size},), not "
            f"{np.shape(state)}: use the states of the same environment"
        )
    return cameras.render_state(state)


def black(cameras: Cameras) -> Images:
    """What is seen with closed eyes."""
    return {key: np.zeros(space.shape, np.uint8) for key, space in cameras.spaces.items()}


class BlindCameras:
    """Cameras that show nothing, for the control of what can be done without looking."""

    def __init__(self, cameras: Cameras) -> None:
        """Take the place of cameras, which are never used."""
        self.spaces, self.state_size = cameras.spaces, cameras.state_size
        self.sim_state, self.close = cameras.sim_state, cameras.close

    def render(self) -> Images:
        """Black images."""
        return black(self)

    def render_state(self, state: np.ndarray) -> Images:
        """Black images."""
        return black(self)


class BlindObservation(gym.ObservationWrapper[Any, Any, Any]):
    """Blackens the images that an environment shows of its own."""

    def observation(self, observation: Any) -> Any:
        """Images (uint8) zeroed, all else as it is."""
        if not isinstance(observation, Mapping):
            return np.zeros_like(observation)
        return {
            key: np.zeros_like(value) if value.dtype == np.uint8 and value.ndim == 3 else value
            for key, value in observation.items()
        }


def is_mujoco_env(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment is one that `MujocoCameras` renders."""
    module: Any = sys.modules.get("gymnasium.envs.mujoco.mujoco_env")
    return module is not None and isinstance(env.unwrapped, module.MujocoEnv)


def shows_images(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment shows images of its own: (H, W, C) uint8."""
    space = env.observation_space
    parts = space.values() if isinstance(space, gym.spaces.Dict) else (space,)
    return any(part.dtype == np.uint8 and len(part.shape or ()) == 3 for part in parts)


class MujocoCameras:
    """Renders one of Gymnasium's MuJoCo environments, many times as fast as its own `render`.

    Shadows, reflections and oversampling are off, and curved shapes are drawn with fewer faces.
    At 64 pixels the difference can hardly be seen.

    Every image is made from the joint positions alone, in a second `MjData`. What the simulator
    holds of bodies after a step is one substep behind its joints, and an image made of that could
    not be made again from the stored state. And bringing it up to date in the simulator's own data
    would change rewards that are measured from it (Ant's).
    """

    def __init__(self, env: gym.Env[Any, Any], size: int, camera: str | None = None) -> None:
        """Choose the camera; OpenGL is not touched before the first image.

        Args:
            env: whose `unwrapped` is a `gymnasium.envs.mujoco.MujocoEnv`.
            size: height and width in pixels.
            camera: a camera of the model. None follows the body with the model's camera `track`
                where it has one, else looks from where the environment's own `render` does.

        Raises:
            SlipstreamError: the model has no such camera.
        """
        # Any: the package's type stubs lack most of it.
        self._mujoco: Any = importlib.import_module("mujoco")
        inner = cast("Any", env.unwrapped)
        self._model, self._data = inner.model, inner.data
        self._scratch = self._mujoco.MjData(self._model)
        self._size = size
        self._camera = self._choose(camera, inner.mujoco_renderer.default_cam_config or {})
        self._context: Any = None
        self._resources: Any = None
        self._scene: Any = None

    @property
    def spaces(self) -> Mapping[str, gym.spaces.Box]:
        """One image."""
        return {"rgb": _image_space((self._size, self._size, 3))}

    @property
    def state_size(self) -> int:
        """Joint positions and velocities."""
        return self._model.nq + self._model.nv

    def sim_state(self) -> np.ndarray:
        """Joint positions and velocities, side by side."""
        return np.concatenate([self._data.qpos, self._data.qvel])

    def render(self) -> Images:
        """An image of the present."""
        return self._render(self._data.qpos)

    def render_state(self, state: np.ndarray) -> Images:
        """The image of a stored state; the running episode is not disturbed."""
        return self._render(state[: self._model.nq])

    def _render(self, qpos: np.ndarray) -> Images:
        self._open()
        mujoco, model, data = self._mujoco, self._model, self._scratch
        data.qpos[:] = qpos
        # What of mj_forward an image needs.
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            model, data, self._options, None, self._camera, everything, self._scene
        )
        upside_down = np.empty((self._size, self._size, 3), np.uint8)
        with self._context.as_current():
            mujoco.mjr_render(self._view, self._scene, self._resources)
            mujoco.mjr_readPixels(upside_down, None, self._view, self._resources)
        return {"rgb": np.ascontiguousarray(upside_down[::-1])}

    def close(self) -> None:
        """Release OpenGL; the next image would take it again."""
        if self._resources is not None:
            with self._context.as_current():
                self._resources.free()
            self._context.free()
            self._context = self._resources = None

    def _open(self) -> None:
        if self._resources is not None:
            return
        mujoco = self._mujoco
        self._view = mujoco.MjrRect(0, 0, self._size, self._size)
        self._options = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(self._model, maxgeom=1000)
        for flag in ("mjRND_SHADOW", "mjRND_REFLECTION"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, flag)] = 0
        context = open_context(self._size)
        with context.as_current(), self._drafted():
            self._resources = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._resources)
        self._context = context

    @contextmanager
    def _drafted(self) -> Iterator[None]:
        """While OpenGL's resources are made: the model as it is to be drawn, then as it was."""
        model = self._model
        quality, size = model.vis.quality, self._size
        settings = (
            (quality, "shadowsize", 0),
            (quality, "offsamples", 0),
            (quality, "numslices", min(quality.numslices, max(12, size // 6))),
            (quality, "numstacks", min(quality.numstacks, max(8, size // 10))),
            (model.vis.global_, "offwidth", size),
            (model.vis.global_, "offheight", size),
        )
        before = [getattr(owner, name) for owner, name, _ in settings]
        geom_size = model.geom_size.copy()
        for owner, name, value in settings:
            setattr(owner, name, value)
        # The third size of a plane is the spacing of the grid that it is drawn as: Hopper's floor
        # would be 100,000 faces.
        planes = model.geom_type == self._mujoco.mjtGeom.mjGEOM_PLANE
        extent = model.geom_size[planes, :2].max(-1)
        model.geom_size[planes, 2] = np.maximum(model.geom_size[planes, 2], extent / 4)
        try:
            yield
        finally:
            for (owner, name, _), value in zip(settings, before, strict=True):
                setattr(owner, name, value)
            model.geom_size[:] = geom_size

    def _choose(self, name: str | None, own: Mapping[str, Any]) -> Any:
        mujoco, model = self._mujoco, self._model
        camera = mujoco.MjvCamera()
        names = [model.camera(i).name for i in range(model.ncam)]
        if name is not None and name not in names:
            raise SlipstreamError(
                f"there is no camera '{name}'; choose one of {', '.join(filter(None, names))}"
                if any(names)
                else f"there is no camera '{name}', the model has none: leave it out"
            )
        if name is not None or "track" in names:
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = names.index(name or "track")
            return camera
        mujoco.mjv_defaultFreeCamera(model, camera)
        mujoco.mj_kinematics(model, self._scratch)
        camera.lookat[:] = np.median(self._scratch.geom_xpos, axis=0)
        for key, value in own.items():
            if isinstance(value, np.ndarray):
                getattr(camera, key)[:] = value
            else:
                setattr(camera, key, value)
        return camera


class RenderCameras:
    """Shrinks what an environment's own `render` shows; for environments without a faster way."""

    state_size = 0

    def __init__(self, env: gym.Env[Any, Any], size: int) -> None:
        """Keep the environment.

        Args:
            env: made with `render_mode="rgb_array"`.
            size: height and width in pixels; another aspect is stretched.
        """
        self._env, self._size = env, size

    @property
    def spaces(self) -> Mapping[str, gym.spaces.Box]:
        """One image."""
        return {"rgb": _image_space((self._size, self._size, 3))}

    def render(self) -> Images:
        """An image of the present; raises as `picture`."""
        from PIL import Image

        whole = Image.fromarray(picture(self._env))
        return {"rgb": np.array(whole.resize((self._size, self._size), Image.Resampling.BOX))}

    def sim_state(self) -> np.ndarray:
        """Not to be had."""
        raise NotImplementedError

    def render_state(self, state: np.ndarray) -> Images:
        """Not to be had."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to release."""


def picture(env: gym.Env[Any, Any]) -> np.ndarray:
    """What an environment's own `render` shows, (H, W, 3) uint8.

    Raises:
        SlipstreamError: it renders no array of colours, or a package for it is missing.
    """
    for driver in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):  # else pygame complains of having none
        os.environ.setdefault(driver, "dummy")
    try:
        shown = env.render()
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        detail = " ".join(str(error).split())
        raise SlipstreamError(f"{env_name(env)} cannot be rendered: {detail}") from error
    if not isinstance(shown, np.ndarray) or shown.ndim != 3 or shown.shape[2] != 3:
        raise SlipstreamError(
            f"{env_name(env)} renders no (H, W, 3) array but "
            f"{getattr(shown, 'shape', type(shown).__name__)}: it cannot be used for images; make "
            "it with render_mode='rgb_array'"
        )
    return shown


def _image_space(shape: tuple[int, ...]) -> gym.spaces.Box:
    return gym.spaces.Box(0, 255, shape, np.uint8)


def _cameras(env: gym.Env[Any, Any]) -> Cameras:
    try:
        return env.get_wrapper_attr("cameras")
    except AttributeError:
        raise SlipstreamError(
            f"{env_name(env)} was opened without images: open it with obs 'rgb' or 'rgb+state'"
        ) from None


def _state_size(cameras: Cameras, env: gym.Env[Any, Any]) -> int:
    if not cameras.state_size:
        raise SlipstreamError(
            f"images of {env_name(env)} cannot be rendered on demand, its simulator cannot be put "
            "into a stored state: render them while stepping"
        )
    return cameras.state_size
