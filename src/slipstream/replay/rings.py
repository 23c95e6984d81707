"""Where rows lie: one ring of slots per environment, side by side."""

import numpy as np
from numpy.typing import NDArray


class Rings:
    """One ring of `rows_per_env` slots for each environment.

    Row n of an environment is the n-th that was ever written of it; its flat index is
    `env * rows_per_env + n % rows_per_env`.

    Attributes:
        num_envs: environments, E.
        rows_per_env: slots of a ring, L.
        base: (E,) flat index of each ring's first slot.
        head: (E,) number of each environment's newest row; -1 before the first.
    """

    def __init__(self, num_envs: int, rows_per_env: int) -> None:
        self.num_envs = num_envs
        self.rows_per_env = rows_per_env
        self.base = np.arange(num_envs) * rows_per_env
        self.head = np.full(num_envs, -1)

    @property
    def num_written(self) -> NDArray[np.int64]:
        """(E,) rows ever written, those that were overwritten included."""
        return self.head + 1

    @property
    def num_stored(self) -> NDArray[np.int64]:
        """(E,) rows that are there."""
        return np.minimum(self.num_written, self.rows_per_env)

    @property
    def newest(self) -> NDArray[np.int64]:
        """(E,) flat index of the newest row."""
        return self.base + self.head % self.rows_per_env

    @property
    def oldest(self) -> NDArray[np.int64]:
        """(E,) flat index of the oldest row that is there."""
        return self.base + np.maximum(self.num_written - self.rows_per_env, 0) % self.rows_per_env

    def flat(self, env: int, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """(R,) flat indices of an environment's rows by number."""
        return self.base[env] + numbers % self.rows_per_env

    def stored(self, env: int) -> NDArray[np.int64]:
        """(R,) flat indices of an environment's rows, oldest first."""
        stop = int(self.head[env]) + 1
        return self.flat(env, np.arange(max(stop - self.rows_per_env, 0), stop))
