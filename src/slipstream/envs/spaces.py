"""What observation and action spaces are understood, and how they become plain arrays."""

from typing import Any

import gymnasium as gym
import numpy as np

from slipstream.errors import SlipstreamError
from slipstream.spec import ArraySpec


def observation_spec(space: gym.Space[Any], env_id: str) -> dict[str, ArraySpec]:
    """Name and shape the one observation that an environment shows.

    Args:
        space: the observation space of a single environment.
        env_id: the environment's name, for error messages.

    Returns:
        `{"rgb": (H, W, C) uint8}` for an image, else `{"state": (n,) float32}`, flattened.

    Raises:
        SlipstreamError: the space is not a Box.
    """
    if not isinstance(space, gym.spaces.Box):
        remedy = "wrap the environment so that it returns one array"
        if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple | gym.spaces.Discrete):
            remedy = (
                "pass a function that returns the environment wrapped in "
                "gymnasium.wrappers.FlattenObservation"
            )
        raise SlipstreamError(
            f"{env_id} has the observation space {_one_line(space)}, but only Box observations "
            f"(vectors, or uint8 images) are supported: {remedy}"
        )
    if space.dtype == np.uint8 and len(space.shape) == 3:
        return {"rgb": ArraySpec(tuple(space.shape), "uint8")}
    return {"state": ArraySpec((int(np.prod(space.shape)),))}


def action_bounds(space: gym.Space[Any], env_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest action of an environment, flattened.

    Args:
        space: the action space of a single environment.
        env_id: the environment's name, for error messages.

    Returns:
        (A,) float64 low and high.

    Raises:
        SlipstreamError: the space is not a Box of floats with finite bounds.
    """
    if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise SlipstreamError(
            f"{env_id} has the action space {_one_line(space)}, but only continuous actions (a Box "
            "of floats) are supported: choose an environment with continuous actions, for example "
            "Pendulum-v1 or HalfCheetah-v5"
        )
    low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
    unbounded = ~(np.isfinite(low) & np.isfinite(high))
    if unbounded.any():
        component = int(np.argmax(unbounded))
        raise SlipstreamError(
            f"{env_id} has an unbounded action: component {component} lies in [{low[component]}, "
            f"{high[component]}]; pass a function that returns the environment wrapped in "
            "gymnasium.wrappers.RescaleAction or with finite bounds of its own"
        )
    return low, high


def to_numpy(value: Any) -> np.ndarray:
    """A numpy view of an array that may be a torch tensor on any device."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _one_line(space: gym.Space[Any]) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 120 else text[:117] + "..."
