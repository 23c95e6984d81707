"""An environment that counts its steps, for tests of what it shows."""

from typing import Any

import gymnasium as gym


class Counting(gym.Env[Any, Any]):
    """Shows what `show` makes of the step's number `t`; an episode is cut off after four."""

    t = 0

    def show(self) -> Any:
        raise NotImplementedError

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.show(), {}

    def step(self, action):
        self.t += 1
        return self.show(), 0.0, False, self.t == 4, {}
