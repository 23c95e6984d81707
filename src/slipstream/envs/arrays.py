"""What is done to a batch of observations and actions, wherever it lies.

The adapter (`VecEnv`) knows when an episode ends and what is reported of it; how rows are copied,
merged and checked is asked of one of two classes with the same methods: `HostArrays` here, for
numpy, and `DeviceArrays` (`envs.device_arrays`), for torch. A process that simulates alone never
imports torch.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from slipstream.envs.spaces import ActionScale, to_numpy, to_obs
from slipstream.spec import ArraySpec

Array = Any
"""A numpy array, or a torch tensor where the environment speaks torch."""


class Arrays(Protocol):
    """A kind of arrays; rows (N,) are numpy masks in the host's memory for both."""

    def obs(self, raw: Any, spec: Mapping[str, ArraySpec]) -> dict[str, Array]:
        """Raw observations (N, *), or a mapping of them, as owned arrays: key -> (N, *)."""
        ...

    def merged(
        self, obs: Mapping[str, Array], other: Mapping[str, Array], rows: np.ndarray
    ) -> dict[str, Array]:
        """`obs` with the rows (N,) bool taken from `other`."""
        ...

    def zeroed(self, value: Array, rows: np.ndarray) -> Array:
        """A value (N, n) with zeros in the rows (N,) bool."""
        ...

    def vector(self, value: Array) -> Array:
        """A value (N, n) as float32."""
        ...

    def to_env(self, action: Array, num_envs: int) -> Array:
        """Actions (N, A) in the environment's own units, as `ActionScale.to_env`."""
        ...

    def finite(self, obs: Mapping[str, Array], action: Array | None = None) -> Array:
        """(N,) bool: whether all float32 observations, and the action, of a row are finite."""
        ...

    def fetch(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Values (N,) in the host's memory; from a device in a single transfer."""
        ...


class HostArrays:
    """numpy arrays."""

    def __init__(self, scale: ActionScale) -> None:
        self._scale = scale

    def obs(self, raw: Any, spec: Mapping[str, ArraySpec]) -> dict[str, np.ndarray]:
        """See `Arrays`."""
        return to_obs(raw, spec)

    def merged(
        self, obs: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], rows: np.ndarray
    ) -> dict[str, np.ndarray]:
        """See `Arrays`."""
        merged = {key: value.copy() for key, value in obs.items()}
        for key, value in merged.items():
            value[rows] = other[key][rows]
        return merged

    def zeroed(self, value: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """See `Arrays`."""
        return np.where(rows[:, None], np.float32(0), value)

    def vector(self, value: Array) -> np.ndarray:
        """See `Arrays`."""
        return np.asarray(to_numpy(value), np.float32)

    def to_env(self, action: Array, num_envs: int) -> np.ndarray:
        """See `Arrays`."""
        return self._scale.to_env(to_numpy(action), num_envs)

    def finite(self, obs: Mapping[str, np.ndarray], action: Array | None = None) -> np.ndarray:
        """See `Arrays`; the action was looked at before it was sent."""
        finite = np.ones(len(next(iter(obs.values()))), bool)
        for value in obs.values():
            if value.dtype == np.float32:
                finite &= np.isfinite(value).all(1)
        return finite

    def fetch(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """See `Arrays`."""
        return {name: to_numpy(value) for name, value in values.items()}
