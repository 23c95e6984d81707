"""What makes an observation worse without hiding it: noise, dropped frames, delay.

A disturbance changes what is seen and never what happens: the same seed and the same actions give
the same episodes with and without it, except in environments that draw random numbers in their
steps and none at an episode's start (see `_RandomDisturbance`).
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from slipstream.envs.masks import env_name
from slipstream.envs.spaces import is_image
from slipstream.errors import SlipstreamError


class _Disturbance(gym.Wrapper[Any, Any, Any, Any]):
    """Changes an episode's first observation by `_first`, all others by `_next`, the last too."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._first(obs), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._next(obs), reward, terminated, truncated, info

    def _first(self, obs: Any) -> Any:
        raise NotImplementedError

    def _next(self, obs: Any) -> Any:
        raise NotImplementedError


class _RandomDisturbance(_Disturbance):
    """Has a generator of its own in each episode, a function of the environment's.

    A running episode is restored by setting the environment's generator to its state before the
    reset and replaying the actions (`EpisodeRecorder`). So the disturbance must follow from that
    state alone: a generator kept over episodes would not come back, nor would `Generator.spawn`,
    whose count of children is no part of the state. Drawing from the environment's own generator
    would, but it would change the task: other pushes, other goals, other first states.

    Therefore each episode's generator is seeded with the number that the environment's generator
    would give next, which is then put back. Only where an unseeded reset drew nothing is one number
    taken for good, lest every episode have the same noise.
    """

    _generator: np.random.Generator

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        # Stacked disturbances need streams of their own: number them from the inside.
        self._stream, inner = 0, env
        while isinstance(inner, gym.Wrapper):
            self._stream += isinstance(inner, _RandomDisturbance)
            inner = inner.env

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        before = None if seed is not None else _peek(self.unwrapped.np_random)
        obs, info = self.env.reset(seed=seed, options=options)
        # A seeded reset is left alone: the same seed must give the same noise.
        if before is not None and _peek(self.unwrapped.np_random) == before:
            self.unwrapped.np_random.random()
        self._generator = np.random.default_rng([_peek(self.unwrapped.np_random), self._stream])
        return self._first(obs), info


class NoiseObservation(_RandomDisturbance):
    """Adds independent Gaussian noise to every component of every vector that is observed.

    Images in a dict stay as they are. The bounds of the observation space are lifted: clipping to
    them would bias the noise.
    """

    def __init__(self, env: gym.Env[Any, Any], std: float) -> None:
        """Lift the bounds.

        Args:
            env: an environment with float observations, or a dict of them and of images.
            std: standard deviation in the observation's own units, at least 0.

        Raises:
            SlipstreamError: there is nothing but images, or numbers that are no floats.
        """
        super().__init__(env)
        self.std = std
        space = env.observation_space
        if isinstance(space, gym.spaces.Dict):
            shown = {
                key: part if is_image(part) else self._unbounded(part)
                for key, part in space.items()
            }
            self.observation_space = gym.spaces.Dict(shown)
            if all(is_image(part) for part in shown.values()):
                raise SlipstreamError(
                    f"{env_name(env)} shows images alone, and noise is added to vectors only: set "
                    "noise to 0"
                )
        else:
            self.observation_space = self._unbounded(space)

    def _unbounded(self, space: gym.Space[Any]) -> gym.spaces.Box:
        if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
            raise SlipstreamError(
                f"{env_name(self.env)} has a {type(space).__name__} observation of {space.dtype}, "
                "and noise can be added to a Box of floats only: set noise to 0"
            )
        # Any: gymnasium's annotation asks for a type where every dtype works.
        dtype: Any = space.dtype
        return gym.spaces.Box(-np.inf, np.inf, space.shape, dtype)

    def _first(self, obs: Any) -> Any:
        return self._next(obs)

    def _next(self, obs: Any) -> Any:
        space = self.observation_space
        if isinstance(space, gym.spaces.Dict):
            return {
                key: obs[key] if is_image(part) else self._noisy(obs[key], part)
                for key, part in space.items()
            }
        return self._noisy(obs, space)

    def _noisy(self, value: np.ndarray, space: gym.Space[Any]) -> np.ndarray:
        noise = self.std * self._generator.standard_normal(np.shape(value))
        return (value + noise).astype(space.dtype)


class DropObservation(_RandomDisturbance):
    """Loses observations at random: the one seen last is then seen again.

    An episode's first observation is never lost, its last may be.
    """

    _seen: Any

    def __init__(self, env: gym.Env[Any, Any], probability: float) -> None:
        """Keep the probability.

        Args:
            env: an environment with observations that are arrays, or dicts of them.
            probability: of losing an observation, in [0, 1]; 1 shows the first for ever.
        """
        super().__init__(env)
        self.probability = probability

    def _first(self, obs: Any) -> Any:
        self._seen = _copy(obs)
        return _copy(self._seen)

    def _next(self, obs: Any) -> Any:
        if self._generator.random() >= self.probability:
            self._seen = _copy(obs)
        return _copy(self._seen)


class DelayObservation(_Disturbance):
    """Shows the observation of `delay` steps ago, and until there is one the episode's first."""

    def __init__(self, env: gym.Env[Any, Any], delay: int) -> None:
        """Make room for the observations that are still under way.

        Args:
            env: an environment with observations that are arrays, or dicts of them.
            delay: steps, at least 0.
        """
        super().__init__(env)
        self.delay = delay
        self._under_way: deque[Any] = deque(maxlen=delay + 1)

    def _first(self, obs: Any) -> Any:
        self._under_way.clear()
        return self._next(obs)

    def _next(self, obs: Any) -> Any:
        self._under_way.append(_copy(obs))
        return _copy(self._under_way[0])


def _copy(obs: Any) -> Any:
    """An observation in arrays of its own: an environment may write into its arrays again."""
    if isinstance(obs, Mapping):
        return {key: np.array(value) for key, value in obs.items()}
    return np.array(obs)


def _peek(generator: np.random.Generator) -> int:
    """The integer that a generator would give next, drawn and put back."""
    # Many times faster than drawing from a copy, which matters where episodes are short.
    state = generator.bit_generator.state
    drawn = int(generator.integers(2**63))
    generator.bit_generator.state = state
    return drawn
