"""Vector environments to try the adapter on."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv


def sync(mode: AutoresetMode, *, copy: bool = True):
    return lambda factories: SyncVectorEnv(factories, copy=copy, autoreset_mode=mode)


class Report(gym.Env):
    """Reports each action it was given, and success under a key at given steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2, 2), np.float64)

    def __init__(
        self,
        low: Any = -1.0,
        high: Any = 1.0,
        shape=(1,),
        key: str | None = "success",
        success_at=(),
        length=3,
    ):
        self.action_space = gym.spaces.Box(low, high, shape, np.float32)
        self.key, self.success_at, self.length = key, success_at, length
        self.received = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros((2, 2)), {} if self.key is None else {self.key: True}

    def step(self, action):
        self.t += 1
        self.received.append(np.array(action))
        info = {} if self.key is None else {self.key: self.t in self.success_at}
        return np.full((2, 2), self.t), 1.0, self.t == self.length, False, info
