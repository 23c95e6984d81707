"""What observation and action spaces are understood, and how they become plain arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from slipstream.errors import SlipstreamError
from slipstream.spec import SIM_STATE, ArraySpec, is_added

_SMALLEST, _CHANNELS = 8, (1, 3, 4)  # rows and columns of what looks like an image
_UNBOUNDED = 1e30  # bounds beyond this, such as float32's largest number, are none


def observation_spec(space: gym.Space[Any], env_id: str) -> dict[str, ArraySpec]:
    """Name and shape the observations that an environment shows.

    Args:
        space: the observation space of a single environment.
        env_id: the environment's name, for error messages.

    Returns:
        `{"rgb": (H, W, C) uint8}` for an image, whatever its layout (see `image_shape`),
        `{"state": (n,) float32}`, flattened, for any other Box, and for a Dict of Boxes each of its
        keys in the same way.

    Raises:
        SlipstreamError: the space is neither a Box nor a Dict of Boxes, an image is not uint8, or a
            key is taken.
    """
    if isinstance(space, gym.spaces.Dict) and space.spaces:
        for key in space.spaces:
            if not key or is_added(str(key)):
                raise taken_key(env_id, key)
        specs = {
            str(key): _array_spec(part, f"{env_id} (key {key!r})")
            for key, part in space.spaces.items()
        }
        if SIM_STATE in specs:  # as the simulator has it, that it can be put back
            specs[SIM_STATE] = ArraySpec(specs[SIM_STATE].shape, "float64")
        return specs
    array = _array_spec(space, env_id)
    return {"rgb" if array.dtype == "uint8" else "state": array}


def taken_key(env_id: str, key: str) -> SlipstreamError:
    """The error for an environment's own observation key that means something else here."""
    return SlipstreamError(
        f"{env_id} shows an observation with the key '{key}', which has a meaning of its own here: "
        "give it another name"
    )


def _array_spec(space: gym.Space[Any], where: str) -> ArraySpec:
    if not isinstance(space, gym.spaces.Box):
        remedy = "wrap the environment so that it returns one array, or a dict of arrays"
        if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple | gym.spaces.Discrete):
            remedy = (
                "pass a function that returns the environment wrapped in "
                "gymnasium.wrappers.FlattenObservation (beside images, show this part as a vector)"
            )
        raise SlipstreamError(
            f"{where} has the observation space {_one_line(space)}, but only Box observations "
            f"(vectors, or uint8 images) and Dicts of them are supported: {remedy}"
        )
    image = image_shape(space)
    if image is None:
        return ArraySpec((int(np.prod(space.shape)),))
    if space.dtype != np.uint8:
        raise SlipstreamError(
            f"{where} shows images {space.shape} of {space.dtype}, but images are uint8, 0 to 255: "
            "pass a function that returns the environment in a wrapper that shows them so (or "
            "flattened, if they are no images)"
        )
    return ArraySpec(image, "uint8")


def is_image(space: gym.Space[Any]) -> bool:
    """Whether a part of an observation is an image, in uint8 and any layout."""
    return space.dtype == np.uint8 and image_shape(space) is not None


def image_shape(space: gym.Space[Any]) -> tuple[int, int, int] | None:
    """An image's (H, W, C); None for what is none.

    Three dimensions in uint8 are an image, with its channels first where they can only be that:
    fewer than there are rows and columns, and the last dimension no usual number of channels. In
    uint8 (H, W) of a sensible size is an image, too; in another dtype what has such a size and 1, 3
    or 4 channels looks like one.
    """
    shape = space.shape or ()
    if len(shape) == 2 and space.dtype == np.uint8 and min(shape) >= _SMALLEST:
        return shape[0], shape[1], 1
    if len(shape) != 3:
        return None
    first = shape[0] < min(shape[1:]) and shape[2] not in _CHANNELS
    height, width, channels = (*shape[1:], shape[0]) if first else shape
    sensible = min(height, width) >= _SMALLEST and channels in _CHANNELS
    return (height, width, channels) if space.dtype == np.uint8 or sensible else None


def channels_last(rows: Any, shape: Sequence[int]) -> Any:
    """Images (N, C, H, W), arrays or tensors, as (N, *shape); all else as it is."""
    if len(shape) == 3 and tuple(rows.shape[1:]) == (shape[2], *shape[:2]) != tuple(shape):
        return rows.swapaxes(1, 2).swapaxes(2, 3)
    return rows


def to_obs(raw: Any, spec: Mapping[str, ArraySpec]) -> dict[str, np.ndarray]:
    """Raw observations of several environments as owned arrays, key -> (rows, *).

    Args:
        raw: one array (rows, *) or tensor, or a mapping of them; the row count is the caller's.
        spec: the keys to fill.
    """
    parts = raw if isinstance(raw, Mapping) else {next(iter(spec)): raw}
    obs: dict[str, np.ndarray] = {}
    for key, array in spec.items():
        rows = channels_last(to_numpy(parts[key]), array.shape)
        # Always a copy: vector environments write the next step into the same buffer. An overflow
        # to infinity is reported by the check that follows.
        with np.errstate(over="ignore"):
            obs[key] = np.array(rows, array.dtype).reshape(len(rows), *array.shape)
    return obs


def stack_obs(rows: Sequence[Any]) -> Any:
    """Raw observations of single environments as a batch of the same structure."""
    if isinstance(rows[0], Mapping):
        return {key: stack_obs([row[key] for row in rows]) for key in rows[0]}
    return np.stack([to_numpy(row) for row in rows])


class ActionScale:
    """Takes actions in [-1, 1] to an environment's own units, in numpy.

    `device_arrays` does it on a device, `policies.step` in a policy that was saved.

    Attributes:
        low: (A,) float64, lowest action of the environment, flattened.
        high: (A,) float64, highest.
        shape: of one action as the environment takes it.
        dtype: its numpy dtype.
    """

    def __init__(self, space: gym.Space[Any], env_id: str) -> None:
        """Read the bounds.

        Args:
            space: the action space of a single environment.
            env_id: the environment's name, for error messages.

        Raises:
            SlipstreamError: the space is not a Box of floats with finite bounds.
        """
        if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
            raise SlipstreamError(
                f"{env_id} has the action space {_one_line(space)}, but only continuous actions (a "
                "Box of floats) are supported: choose an environment with continuous actions, for "
                "example Pendulum-v1 or HalfCheetah-v5"
            )
        low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
        unbounded = ~((np.abs(low) < _UNBOUNDED) & (np.abs(high) < _UNBOUNDED))
        if unbounded.any():
            j = int(np.argmax(unbounded))
            raise SlipstreamError(
                f"{env_id} has an unbounded action: component {j} lies in [{low[j]}, {high[j]}]; "
                "pass a function that returns the environment with finite bounds of its own, or "
                "wrapped in one of gymnasium.wrappers that sets them"
            )
        self.low, self.high = low, high
        self._env_id = env_id
        self._centre, self._half = (low + high) / 2, (high - low) / 2
        self.shape, self.dtype = tuple(space.shape), space.dtype

    def to_env(self, action: np.ndarray, num_envs: int) -> np.ndarray:
        """Clip to [-1, 1] and rescale to [low, high].

        Args:
            action: (N, A).
            num_envs: N.

        Returns:
            (N, *) in the shape and dtype of the environment's action space.

        Raises:
            SlipstreamError: wrong shape, or not finite.
        """
        action = np.asarray(action, np.float64)
        self.check_shape(action.shape, num_envs)
        self.check_finite(action)
        # Clipped last: rounding may step over a bound too.
        action = action * self._half + self._centre
        action = np.minimum(np.maximum(action, self.low), self.high)
        return action.reshape(num_envs, *self.shape).astype(self.dtype)

    def check_shape(self, shape: tuple[int, ...], num_envs: int) -> None:
        """Raise SlipstreamError unless it is (N, A)."""
        expected = (num_envs, len(self.low))
        if shape != expected:
            raise SlipstreamError(
                f"{self._env_id} takes actions of shape {expected}, got {shape}: give one "
                "row for each environment"
            )

    def check_finite(self, action: np.ndarray) -> None:
        """Raise SlipstreamError where an action (N, A) is not finite."""
        if not np.isfinite(action).all():
            i, j = np.argwhere(~np.isfinite(action))[0]
            raise SlipstreamError(
                f"component {j} of the action for environment {i} is {action[i, j]}: the policy "
                "diverged, lower the learning rates or look at the training metrics"
            )


def to_numpy(value: Any) -> np.ndarray:
    """A numpy view of an array that may be a torch tensor on any device."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _one_line(space: gym.Space[Any]) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 120 else text[:117] + "..."
