"""What one step of a vectorised environment yields."""

from dataclasses import dataclass

import numpy as np

from slipstream.envs.arrays import Array


@dataclass(frozen=True)
class Episode:
    """An episode that ended.

    Attributes:
        env_index: which of the environments it ran in.
        episode_return: undiscounted sum of its rewards.
        length: its number of transitions.
        success: whether the environment reported success at any step; None if it never reports.
        success_at_end: whether it reported success at the last step; None if it reported nothing.
    """

    env_index: int
    episode_return: float
    length: int
    success: bool | None
    success_at_end: bool | None


@dataclass(frozen=True)
class StepResult:
    """What one call of `VecEnv.step` did to N environments.

    Observations are numpy arrays, or torch tensors where the environment speaks torch; all else is
    numpy. The arrays are the caller's to keep (the environment never overwrites them), but
    `next_obs` and `obs` may share memory with each other: do not write into them.

    Attributes:
        next_obs: key -> (N, *), the true next observation, an episode's last one included.
        reward: (N,) float32.
        terminated: (N,) bool, the episode reached a terminal state.
        truncated: (N,) bool, the episode was cut; both may be true at once.
        obs: key -> (N, *), what to act on next: differs from `next_obs` only where a new episode
            began.
        started: (N,) bool, `obs` is the first observation of a new episode.
        acted: (N,) bool, False where the call only began a new episode, ignoring the action: there
            was no transition, so `next_obs` is `obs`, the reward 0 and both ends False.
        episodes: the episodes that ended in this call.
    """

    next_obs: dict[str, Array]
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    obs: dict[str, Array]
    started: np.ndarray
    acted: np.ndarray
    episodes: tuple[Episode, ...]
