"""Positions and velocities of an environment that nobody wrote a table for."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv

from slipstream.envs.masks import mask_indices
from slipstream.envs.mujoco_halves import halves
from slipstream.errors import SlipstreamError

# A cart with a pole, and a ball that slides where nobody steers it.
XML = """
<mujoco>
  <worldbody>
    <body name="cart">
      <joint name="slide" type="slide" axis="1 0 0"/>
      <geom type="box" size=".1 .1 .1" mass="1" contype="0" conaffinity="0"/>
      <body name="pole">
        <joint name="hinge" type="hinge" axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 0 0 0 .5" size=".02" contype="0" conaffinity="0"/>
        <body name="tip" pos="0 0 .5"/>
      </body>
    </body>
    <body name="ball" pos="0 2 0">
      <joint name="roll" type="slide" axis="1 0 0"/>
      <geom type="sphere" size=".1" mass=".1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator><motor joint="slide" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


class CartEnv(MujocoEnv):
    """Shows a constant, angle, tip, speed, place of the ball, momentum, place and speed."""

    def __init__(self, path: str, noise: float = 0.0) -> None:
        self._noise = noise
        space = gym.spaces.Box(-np.inf, np.inf, (8,), np.float64)
        super().__init__(path, 5, observation_space=space)

    def _get_obs(self) -> np.ndarray:
        slide, hinge, _ = self.data.qpos
        velocities = self.data.qvel
        shown = [
            *(1.0, np.sin(hinge), self.get_body_com("tip")[0], velocities[1]),
            *(self.get_body_com("ball")[0], slide * velocities[0], slide, velocities[2]),
        ]
        return np.array(shown) + self._noise * self.np_random.standard_normal(8)

    def step(self, action: Any) -> Any:
        self.do_simulation(action, self.frame_skip)
        return self._get_obs(), 0.0, False, False, {}

    def reset_model(self) -> np.ndarray:
        self.set_state(self.init_qpos, self.init_qvel)
        return self._get_obs()


@pytest.fixture
def xml(tmp_path):
    path = tmp_path / "cart.xml"
    path.write_text(XML)
    return str(path)


def test_each_component_is_what_moves_it(xml):
    env = CartEnv(xml)
    assert mask_indices("velocities", env) == (3, 7)
    # The tip follows slide and hinge, which are shown too, one substep late: both would tell a
    # velocity. The ball's place is late as well, but shown alone.
    assert mask_indices("positions", env) == (1, 4, 6)


def test_simulation_and_random_numbers_are_put_back(xml):
    asked, other = CartEnv(xml), CartEnv(xml)
    for env in (asked, other):
        env.reset(seed=4)
        env.step(np.array([0.5]))
    halves(asked)
    assert np.array_equal(asked.data.qpos, other.data.qpos)
    assert asked.data.time == other.data.time > 0
    assert asked.np_random.random() == other.np_random.random()
    assert np.array_equal(asked.step(np.array([0.2]))[0], other.step(np.array([0.2]))[0])


def test_noise_in_an_observation_is_refused(xml):
    with pytest.raises(SlipstreamError, match=r"of CartEnv is made of \(it differs from look to"):
        mask_indices("positions", CartEnv(xml, noise=0.1))


def test_what_an_environment_raises_is_told(xml):
    env = CartEnv(xml)
    env._get_obs = lambda: {"state": np.zeros(8)}  # pyright: ignore
    with pytest.raises(SlipstreamError, match=r"is no vector\): give the components"):
        mask_indices("positions", env)
