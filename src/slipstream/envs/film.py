"""Looking at an environment as a person would, through one whole episode."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, SupportsFloat

import gymnasium as gym
import numpy as np
from tyro.conf import arg

from slipstream.envs.pixels import MujocoCameras, is_mujoco_env, picture
from slipstream.errors import SlipstreamError

Moment = Literal["eval", "best", "switch", "end"]
Show = Callable[[np.ndarray, float], None]
"""Takes a frame (H, W, 3) uint8 and the frames a second that make it real time."""

MAX_FPS = 50
"""A simulator that takes more steps a second is not shown at every one of them."""


@dataclass(frozen=True)
class VideoConfig:
    """Videos of evaluation episodes, in the run's folder `videos`."""

    enabled: Annotated[bool, arg(name="video", prefix_name=False)] = False
    """Record videos of evaluation episodes."""
    when: tuple[Moment, ...] = ("switch", "end")
    """At the switch, at the end, at every new best, or at every evaluation."""
    actors: tuple[Literal["accelerator", "transformer"], ...] = ("accelerator", "transformer")
    """Which actors, as far as they are evaluated then."""
    episodes: int = 1
    """Episodes of each actor: the first of its evaluation, on the same seeds."""
    size: int = 320
    """Height and width in pixels, where the environment does not have a size of its own."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for values that make no video."""
        if self.episodes < 1:
            raise SlipstreamError(f"video.episodes is {self.episodes}; it must be at least 1")
        if self.size < 16 or self.size % 2:
            raise SlipstreamError(
                f"video.size is {self.size}; it must be an even number, 16 at least"
            )
        for name in ("when", "actors"):
            if self.enabled and not getattr(self, name):
                raise SlipstreamError(f"video.{name} is empty, so nothing is recorded; name one")


class FilmedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Shows its first episode, from the first state to the last; what follows is not shown."""

    def __init__(
        self, env: gym.Env[Any, Any], show: Show, size: int, camera: str | None = None
    ) -> None:
        """Choose where to look from.

        Args:
            env: a MuJoCo task, or one whose `render` returns pictures.
            show: takes every frame.
            size: height and width of a MuJoCo task's frames, in pixels.
            camera: of a MuJoCo task; None takes the one that follows the body.
        """
        super().__init__(env)
        self._show = show
        self._cameras = MujocoCameras(env, size, camera) if is_mujoco_env(env) else None
        fps = float(env.metadata.get("render_fps") or 30)
        self._every = math.ceil(fps / MAX_FPS)
        self._fps = fps / self._every
        self._step = 0
        self._over = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        result = self.env.reset(seed=seed, options=options)
        if not self._over:
            self._show(self._look(), self._fps)
        return result

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if not self._over:
            self._step += 1
            self._over = bool(terminated or truncated)
            if self._over or self._step % self._every == 0:
                self._show(self._look(), self._fps)
        return obs, reward, terminated, truncated, info

    def _look(self) -> np.ndarray:
        return picture(self.env) if self._cameras is None else self._cameras.render()["rgb"]

    def close(self) -> None:
        """Release the view and the environment."""
        if self._cameras is not None:
            self._cameras.close()
        super().close()
