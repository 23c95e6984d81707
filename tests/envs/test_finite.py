"""Numbers that are not finite are refused where they first appear."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from slipstream.envs.making import make_env
from slipstream.errors import SlipstreamError
from tests.envs.vectors import sync


class Broken(gym.Env):
    """One number goes wrong at one step."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, where=None, value=np.nan, at=2):
        self.where, self.value, self.at = where, value, at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def _obs(self):
        obs = np.zeros(3)
        if self.where == "obs" and self.t == self.at:
            obs[1] = self.value
        return obs

    def step(self, action):
        self.t += 1
        reward = self.value if self.where == "reward" and self.t == self.at else 0.0
        return self._obs(), reward, self.t == 2, False, {}


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e300])
@pytest.mark.parametrize("mode", [None, *AutoresetMode])
def test_a_number_that_is_not_finite_is_refused(mode, value):
    wrap = list if mode is None else sync(mode)
    for where, message in (
        ("obs", r"in component 1 of the observation 'state' in environment 1 at step 2"),
        ("reward", r"the reward .* in environment 1 at step 2 of its episode"),
    ):
        env = make_env(wrap([Broken, lambda where=where: Broken(where, value)]))
        env.reset()
        env.step(np.zeros((2, 1)))
        with pytest.raises(SlipstreamError, match=message) as caught:
            env.step(np.zeros((2, 1)))
        assert "\n" not in str(caught.value)


def test_a_bad_first_observation_is_refused():
    env = make_env(lambda: Broken("obs", at=0))
    with pytest.raises(SlipstreamError, match="at step 0 of its episode"):
        env.reset()
