"""What an environment shows and takes: names, shapes and dtypes, nothing else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

PRIVILEGED = "privileged"
"""The observation key that only the networks of a run named as privileged may read."""

SIM_STATE = "sim_state"
"""The observation key of a simulator's state (float64), of which images are rendered on demand."""

PREVIOUS = ("prev_action", "prev_reward")
"""The observation keys of what came before: the adapter's, not the environment's."""

_DIFFERENCE = ".difference"


def difference_key(key: str) -> str:
    """The observation key of by how much a vector changed since the last step."""
    return key + _DIFFERENCE


def is_difference(key: str) -> bool:
    """Whether an observation key is that of a difference."""
    return key.endswith(_DIFFERENCE)


def is_added(key: str) -> bool:
    """Whether an observation key is the adapter's, not the environment's."""
    return key in PREVIOUS or is_difference(key)


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of one observation key, without batch or time dimension."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of one observation."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class EnvSpec:
    """What every other part needs to know of an environment.

    Actions are vectors of `action_dim` floats in [-1, 1]; the env adapter rescales them to
    [`action_low`, `action_high`], the environment's own units.
    """

    env_id: str
    obs: Mapping[str, ArraySpec]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    max_episode_steps: int | None = None

    @property
    def own_obs(self) -> dict[str, ArraySpec]:
        """What the environment itself shows a policy: nothing privileged, and nothing added."""
        return {
            key: value for key, value in self.obs.items() if key != PRIVILEGED and not is_added(key)
        }

    @property
    def action_dim(self) -> int:
        """Number of action components."""
        return len(self.action_low)
