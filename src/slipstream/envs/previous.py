"""The previous action and reward, and what has changed since, shown as observations."""

from collections.abc import Mapping

import numpy as np

from slipstream.envs.arrays import Array, Arrays
from slipstream.spec import PREVIOUS, PRIVILEGED, SIM_STATE, ArraySpec, difference_key


class Previous:
    """What came before: "prev_action" (N, A) in [-1, 1], "prev_reward" (N, 1), "*.difference".

    The last are by how much the vectors that the policy sees have changed, (N, n) each.

    Attributes:
        spec: observation key -> its shape in one environment, for those that are shown.
    """

    def __init__(
        self,
        arrays: Arrays,
        num_envs: int,
        action_dim: int | None,
        reward: bool,
        vectors: Mapping[str, ArraySpec],
    ) -> None:
        """Begin with zeros.

        Args:
            arrays: the kind of arrays that observations are.
            num_envs: N.
            action_dim: A, or None to leave out the action.
            reward: show the reward.
            vectors: what the differences are shown of.
        """
        self._arrays = arrays
        sizes = dict(zip(PREVIOUS, (action_dim, 1 if reward else None), strict=True))
        shown = {key: size for key, size in sizes.items() if size is not None}
        self._compared = {difference_key(key): key for key in vectors}
        shown |= {added: vectors[key].size for added, key in self._compared.items()}
        self.spec = {key: ArraySpec((size,)) for key, size in shown.items()}
        self._values: dict[str, Array] = {
            key: arrays.vector(np.zeros((num_envs, size))) for key, size in shown.items()
        }

    def keep(
        self,
        action: Array,
        reward: np.ndarray,
        before: Mapping[str, Array],
        after: Mapping[str, Array],
    ) -> None:
        """Take the action (N, A), the reward (N,) and the observations of the step just taken."""
        for key in self._values:
            if key in self._compared:
                value = after[self._compared[key]] - before[self._compared[key]]
            else:
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


def comparable(obs_spec: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    """The vectors among observations that a policy sees step by step."""
    return {
        key: value
        for key, value in obs_spec.items()
        if len(value.shape) == 1 and key not in (PRIVILEGED, SIM_STATE)
    }
