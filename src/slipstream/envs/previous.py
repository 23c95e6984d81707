"""The previous action and reward, shown as observations."""

from collections.abc import Mapping

import numpy as np

from slipstream.envs.arrays import Array, Arrays
from slipstream.spec import PREVIOUS, ArraySpec


class Previous:
    """What came before: "prev_action" (N, A) in [-1, 1], "prev_reward" (N, 1), or neither.

    Attributes:
        spec: observation key -> its shape in one environment, for those that are shown.
    """

    def __init__(self, arrays: Arrays, num_envs: int, action_dim: int | None, reward: bool) -> None:
        """Begin with zeros.

        Args:
            arrays: the kind of arrays that observations are.
            num_envs: N.
            action_dim: A, or None to leave out the action.
            reward: show the reward.
        """
        self._arrays = arrays
        sizes = dict(zip(PREVIOUS, (action_dim, 1 if reward else None), strict=True))
        shown = {key: size for key, size in sizes.items() if size is not None}
        self.spec = {key: ArraySpec((size,)) for key, size in shown.items()}
        self._values: dict[str, Array] = {
            key: arrays.vector(np.zeros((num_envs, size))) for key, size in shown.items()
        }

    def keep(self, action: Array, reward: np.ndarray) -> None:
        """Take the action (N, A) and the reward (N,) of the step just taken."""
        for key in self._values:
            value = action.clip(-1, 1) if key == "prev_action" else reward[:, None]
            self._values[key] = self._arrays.vector(value)

    def add_to(self, obs: dict[str, Array], zero: np.ndarray) -> None:
        """Put it into observations; zeros in the rows `zero` (N,) bool, where an episode begins."""
        for key, value in self._values.items():
            obs[key] = self._arrays.zeroed(value, zero)

    def load(self, values: Mapping[str, Array]) -> None:
        """Take over what was shown last."""
        for key in self._values:
            self._values[key] = self._arrays.vector(values[key])
