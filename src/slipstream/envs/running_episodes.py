"""Statistics of the episodes that are running: return, length, success."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from slipstream.envs.step_result import Episode


class RunningEpisodes:
    """What each of N environments' running episode has come to so far.

    Attributes:
        length: (N,) transitions.
    """

    def __init__(self, num_envs: int) -> None:
        self.length = np.zeros(num_envs, np.int64)
        self._return = np.zeros(num_envs)
        self._success = np.full(num_envs, -1, np.int8)  # -1: never reported

    def add(self, reward: np.ndarray) -> None:
        """Add rewards (N,) float64."""
        self._return += reward

    def report(self, succeeded: np.ndarray) -> None:
        """Take reports (N,) int8 of success: 1, 0, or -1 for no report."""
        np.maximum(self._success, succeeded, out=self._success)

    def end(self, done: np.ndarray, succeeded: np.ndarray | None) -> tuple[Episode, ...]:
        """Close the episodes where `done` (N,) bool, and begin others.

        Args:
            done: (N,) bool.
            succeeded: (N,) int8, what was reported in this last step; None for nothing.
        """
        return tuple(self._end(int(i), succeeded) for i in np.flatnonzero(done))

    def _end(self, i: int, succeeded: np.ndarray | None) -> Episode:
        at_end = -1 if succeeded is None else succeeded[i]
        once, last = (None if flag < 0 else bool(flag) for flag in (self._success[i], at_end))
        episode = Episode(i, float(self._return[i]), int(self.length[i]), once, last)
        self._return[i], self.length[i], self._success[i] = 0.0, 0, -1
        return episode

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of what is counted, each (N,)."""
        return {
            "episode_return": self._return.copy(),
            "episode_length": self.length.copy(),
            "success": self._success.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any], kept: np.ndarray) -> None:
        """Go on with the episodes in the rows `kept` (N,) bool; the others begin anew."""
        self._return = np.where(kept, state["episode_return"], 0.0)
        self.length = np.where(kept, state["episode_length"], 0)
        self._success = np.where(kept, state["success"], -1).astype(np.int8)
