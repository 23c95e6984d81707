"""Images of stored simulator states: rendered when somebody looks at them, once each."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slipstream.envs.vec_env import VecEnv
from slipstream.replay import ReplayBuffer
from slipstream.spec import SIM_STATE


class SingleEnv:
    """One environment beside those that are collected in, opened when it is first needed."""

    def __init__(self, make: Callable[[], VecEnv]) -> None:
        self._make = make
        self._env: VecEnv | None = None

    def open(self) -> VecEnv:
        """The environment, in whatever state it was left."""
        if self._env is None:
            self._env = self._make()
        return self._env

    def close(self) -> None:
        """Release it; it can be opened again."""
        if self._env is not None:
            self._env.close()
            self._env = None


class Frames:
    """The newest rows of a replay that holds simulator states, with images in their place.

    A row is rendered when it is first wanted here, or taken along into stage 2, and then kept. Only
    one that still waits for its action is rendered again with the rows that follow.

    Args:
        rows: empty, for those rows; of as many environments as the replay.
        env: renders.

    Attributes:
        num_rendered: rows rendered so far.
    """

    def __init__(self, rows: ReplayBuffer, env: SingleEnv) -> None:
        self.rows = rows
        self.num_rendered = 0
        self._followed = np.zeros(rows.num_envs, np.int64)
        self._env = env

    def follow(self, replay: ReplayBuffer) -> ReplayBuffer:
        """`rows`, with what the replay has gained since they were last looked at."""
        gained = replay.num_written - self._followed
        if gained.any():
            newest = gained + (self.rows.pending & (gained > 0))
            newest = np.minimum(newest, self.rows.newest_that_fit(replay))
            self.rows.append(replay, newest, derive=self.render)
            self._followed = replay.num_written
        return self.rows

    def render(self, replay: ReplayBuffer, rows: Tensor) -> dict[str, Tensor]:
        """Images of flat rows (R,): key -> (R, H, W, C) uint8, on the CPU."""
        states = replay.observations(SIM_STATE, rows).numpy(force=True)
        self.num_rendered += len(states)
        images = self._env.open().render_states(states)
        return {key: torch.as_tensor(value) for key, value in images.items()}

    def hand_over(
        self,
        replay: ReplayBuffer,
        target: ReplayBuffer,
        newest: np.ndarray,
        derive: Callable[[ReplayBuffer, Tensor], Mapping[str, Tensor]],
    ) -> None:
        """Take rows along into an empty replay without holding more images than these at once.

        Args:
            replay: holds simulator states.
            target: where the rows go.
            newest: (E,) how many of each environment.
            derive: what the target holds of rows with images, or of rows with simulator states.
        """
        rows = self.follow(replay)
        here = np.minimum(newest, rows.num_stored)
        target.append(replay, newest, skip=here, derive=derive)
        target.append(rows, here, derive=derive)

    def state_dict(self) -> dict[str, Any]:
        """The rows with their images, so that none is rendered twice."""
        return {
            "rows": self.rows.state_dict(),
            "followed": self._followed.copy(),
            "num_rendered": self.num_rendered,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rows.load_state_dict(state["rows"])
        self._followed = np.array(state["followed"])
        self.num_rendered = state["num_rendered"]
