"""Images of environments, rendered while stepping or on demand from a stored simulator state.

A wrapper shows `{"rgb": (H, W, C) uint8}` and, where wanted, the state beside it. Where the
simulator can be put into a state, it can show that state in place of the image: a few numbers a row
in place of thousands, of which `render_state` makes the very same pixels later, for the rows that
are used.
"""

import os
from collections.abc import Mapping
from typing import Any, Protocol, SupportsFloat

import gymnasium as gym
import numpy as np

from slipstream.envs.masks import env_name
from slipstream.envs.spaces import is_image, taken_key
from slipstream.errors import SlipstreamError
from slipstream.spec import PRIVILEGED, SIM_STATE

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

    The observation is a dict: the cameras' keys (`rgb`), the state if it is wanted, `privileged` if
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
            show_state: keep the vector, as `state`, or the vectors of a dict.
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
        if SIM_STATE in shown:
            raise taken_key(env_name(env), SIM_STATE)
        if not show_state:
            shown = {key: part for key, part in shown.items() if key == PRIVILEGED}
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
            parts = {key: part for key, part in parts.items() if key == PRIVILEGED}
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
        """Images zeroed, all else as it is."""
        space = self.observation_space
        if not isinstance(space, gym.spaces.Dict):
            return np.zeros_like(observation)
        return {
            key: np.zeros_like(value) if is_image(space[key]) else value
            for key, value in observation.items()
        }


class ImagesAlone(gym.ObservationWrapper[Any, Any, Any]):
    """Shows an environment's own images, and of its vectors `privileged` alone."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        if isinstance(space, gym.spaces.Dict):
            shown = [key for key in space if key == PRIVILEGED or is_image(space[key])]
            self.observation_space = gym.spaces.Dict({key: space[key] for key in shown})

    def observation(self, observation: Any) -> Any:
        """What is left of it."""
        space = self.observation_space
        if not isinstance(space, gym.spaces.Dict):
            return observation
        return {key: observation[key] for key in space}


def shows_images(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment shows the policy images of its own."""
    space = env.observation_space
    parts = space.spaces if isinstance(space, gym.spaces.Dict) else {"rgb": space}
    return any(is_image(part) for key, part in parts.items() if key != PRIVILEGED)


class RenderCameras:
    """Shrinks what an environment's own `render` shows; for environments without a faster way."""

    state_size = 0

    def __init__(self, env: gym.Env[Any, Any], size: int) -> None:
        """Keep the environment.

        Args:
            env: made with `render_mode="rgb_array"`.
            size: height and width in pixels; another aspect is stretched.

        Raises:
            SlipstreamError: it does not claim to render any.
        """
        if env.render_mode is None and "rgb_array" not in env.metadata.get("render_modes", []):
            raise _renders_nothing(env)
        self._env, self._size = env, size

    @property
    def spaces(self) -> Mapping[str, gym.spaces.Box]:
        """One image."""
        return {"rgb": gym.spaces.Box(0, 255, (self._size, self._size, 3), np.uint8)}

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
    except NotImplementedError as error:
        raise _renders_nothing(env) from error
    except Exception as error:
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise SlipstreamError(f"{env_name(env)} cannot be rendered: {detail}") from error
    if not isinstance(shown, np.ndarray) or shown.ndim != 3 or shown.shape[2] != 3:
        raise SlipstreamError(
            f"{env_name(env)} renders no (H, W, 3) array but "
            f"{getattr(shown, 'shape', type(shown).__name__)}: it cannot be used for images; make "
            "it with render_mode='rgb_array'"
        )
    return shown


def _renders_nothing(env: gym.Env[Any, Any]) -> SlipstreamError:
    return SlipstreamError(
        f"{env_name(env)} has no images: its metadata['render_modes'] are "
        f"{env.metadata.get('render_modes', [])}; leave out --obs and --video, or let its render() "
        "return (H, W, 3) uint8 with render_mode='rgb_array'"
    )


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
