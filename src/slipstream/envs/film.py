"""Looking at an environment as a person would, through one whole episode."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, SupportsFloat, cast

import gymnasium as gym
import numpy as np
from annotated_types import Ge, MultipleOf
from gymnasium.vector import VectorEnv, VectorWrapper
from tyro.conf import arg

from slipstream.envs.mujoco_cameras import MujocoCameras, is_mujoco_env
from slipstream.envs.pixels import picture
from slipstream.errors import SlipstreamError
from slipstream.settings import Count, Settings

Moment = Literal["eval", "best", "switch", "end"]
Show = Callable[[np.ndarray, float], None]
"""Takes a frame (H, W, 3) uint8 and the frames a second that make it real time."""

MAX_FPS = 50
"""A simulator that takes more steps a second is not shown at every one of them."""


@dataclass(frozen=True)
class VideoConfig(Settings, section="video"):
    """Videos of evaluation episodes, in the run's folder `videos`."""

    enabled: Annotated[bool, arg(name="video", prefix_name=False)] = False
    """Record videos of evaluation episodes."""
    when: tuple[Moment, ...] = ("switch", "end")
    """At the switch, at the end, at every new best, or at every evaluation."""
    actors: tuple[Literal["accelerator", "transformer"], ...] = ("accelerator", "transformer")
    """Which actors, as far as they are evaluated then."""
    episodes: Count = 1
    """Episodes of each actor: the first of its evaluation, on the same seeds."""
    size: Annotated[int, Ge(16), MultipleOf(2)] = 320
    """Height and width in pixels, where the environment does not have a size of its own."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for values that make no video."""
        super().__post_init__()
        for name in ("when", "actors"):
            if self.enabled and not getattr(self, name):
                raise SlipstreamError(f"video.{name} is empty, so nothing is recorded; name one")


class _Film:
    """Shows one episode frame by frame.

    Args:
        show: takes every frame.
        look: makes one of the present.
        metadata: of the environment; says how many steps make a second.
    """

    def __init__(
        self, show: Show, look: Callable[[], np.ndarray], metadata: Mapping[str, Any]
    ) -> None:
        self._show, self._look = show, look
        fps = float(metadata.get("render_fps") or 30)
        self._every = math.ceil(fps / MAX_FPS)
        self._fps = fps / self._every
        self._step = 0
        self._over = False

    def begin(self) -> None:
        """The first state is there."""
        if not self._over:
            self._show(self._look(), self._fps)

    def go_on(self, ended: bool) -> None:
        """A step was taken, which ended the episode or not."""
        if self._over:
            return
        self._step += 1
        self._over = ended
        if ended or self._step % self._every == 0:
            self._show(self._look(), self._fps)


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
        self._cameras = MujocoCameras(env, size, camera) if is_mujoco_env(env) else None
        self._film = _Film(show, self._look, env.metadata)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        result = self.env.reset(seed=seed, options=options)
        self._film.begin()
        return result

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._film.go_on(bool(terminated or truncated))
        return obs, reward, terminated, truncated, info

    def _look(self) -> np.ndarray:
        return picture(self.env) if self._cameras is None else self._cameras.render()["rgb"]

    def close(self) -> None:
        """Release the view and the environment."""
        if self._cameras is not None:
            self._cameras.close()
        super().close()


class FilmedBatch(VectorWrapper):
    """As `FilmedEnv`, of a vector environment of one that begins no episode by itself.

    Its `render` returns (H, W, 3) uint8.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], show: Show) -> None:
        """Keep the environment and who looks."""
        super().__init__(env)
        self._film = _Film(show, lambda: cast("Any", env).render(), env.metadata)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        result = self.env.reset(seed=seed, options=options)
        self._film.begin()
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one step."""
        result = self.env.step(actions)
        self._film.go_on(bool(result[2].any() or result[3].any()))
        return result
