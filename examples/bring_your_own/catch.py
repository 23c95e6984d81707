"""An environment of one's own: a cart on a line that is to come to rest at a moving target."""

import gymnasium as gym
import numpy as np


class Catch(gym.Env):
    """Observations: the target's distance, both velocities. Actions: a push, in newtons."""

    def __init__(self, mass=1.0):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,))
        self.action_space = gym.spaces.Box(-5.0, 5.0, (1,))
        self.mass = mass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        # All randomness comes from np_random, so that a run can be resumed exactly.
        self.distance = self.np_random.uniform(-3, 3)
        self.target_velocity = self.np_random.uniform(-0.5, 0.5)
        self.velocity = 0.0
        return self._obs(), {}

    def step(self, action):
        self.velocity += 0.1 * float(action[0]) / self.mass
        self.distance += 0.1 * (self.target_velocity - self.velocity)
        reward = -abs(self.distance) - 0.01 * float(action[0]) ** 2
        lost = abs(self.distance) > 10  # a terminal state: nothing good can follow
        return self._obs(), reward, lost, False, {"success": abs(self.distance) < 0.1}

    def _obs(self):
        return np.array([self.distance, self.velocity, self.target_velocity], np.float32)


def make(**kwargs):
    """What is named on the command line: makes one environment, time limit included."""
    return gym.wrappers.TimeLimit(Catch(**kwargs), max_episode_steps=100)
