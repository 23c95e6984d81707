"""Images of MuJoCo environments, drawn from their joint positions."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import gymnasium as gym
import numpy as np

from slipstream.envs.gl import open_context
from slipstream.envs.pixels import Images
from slipstream.errors import SlipstreamError


def is_mujoco_env(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment is one that `MujocoCameras` renders."""
    module: Any = sys.modules.get("gymnasium.envs.mujoco.mujoco_env")
    return module is not None and isinstance(env.unwrapped, module.MujocoEnv)


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
        return {"rgb": gym.spaces.Box(0, 255, (self._size, self._size, 3), np.uint8)}

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
