"""What can be made a vectorised environment of, and processes that die in one."""

import os
import signal
from typing import cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv

from slipstream.envs.making import make_env
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from tests.envs.vectors import Report


class WithSpaces(gym.Env):
    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}


BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (
            gym.spaces.Dict(a=BOX, b=gym.spaces.Discrete(2)),
            BOX,
            r"key 'b'.*observation space Discrete\(2\).*FlattenObservation",
        ),
        (gym.spaces.Dict(a=gym.spaces.Dict(b=BOX)), BOX, "key 'a'.*FlattenObservation"),
        (
            gym.spaces.Dict(a=BOX, prev_action=BOX),
            BOX,
            "the key 'prev_action', which has a meaning",
        ),
        (gym.spaces.Dict(prev_reward=BOX), BOX, "the key 'prev_reward'"),
        (gym.spaces.Dict(sim_state=BOX), BOX, "the key 'sim_state'"),
        (gym.spaces.Text(3), BOX, "observation space Text.*only Box observations"),
        (BOX, gym.spaces.Discrete(2), r"action space Discrete\(2\).*continuous actions"),
        (BOX, gym.spaces.MultiBinary(2), r"action space MultiBinary\(2\)"),
        (BOX, gym.spaces.Box(0, 5, (1,), np.int64), "action space Box.*a Box of floats"),
        (
            BOX,
            gym.spaces.Box(np.array([-1, -np.inf]), np.array([1, 1]), dtype=np.float64),
            r"unbounded action: component 1 lies in \[-inf, 1.0\].*finite bounds",
        ),
    ],
)
@pytest.mark.parametrize("parallel", [False, True])
def test_unsupported_spaces_are_named(observation_space, action_space, message, parallel):
    with pytest.raises(SlipstreamError, match=message) as caught:
        make_env(lambda: WithSpaces(observation_space, action_space), parallel=parallel)
    assert "\n" not in str(caught.value)


def test_unsupported_spaces_of_a_vector_env_are_named():
    with pytest.raises(SlipstreamError, match=r"CartPole-v1 has the action space Discrete\(2\)"):
        make_env(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"))


def test_images_stay_uint8():
    space = gym.spaces.Box(0, 255, (4, 5, 3), np.uint8)
    env = make_env(lambda: WithSpaces(space, BOX), num_envs=2)
    obs = env.reset(seed=0)
    assert list(obs) == ["rgb"]
    assert obs["rgb"].shape == (2, 4, 5, 3)
    assert obs["rgb"].dtype == np.uint8
    assert env.spec.obs["rgb"].num_bytes == 60


def test_the_time_limit_is_known_and_may_be_absent():
    assert make_env("Pendulum-v1").spec.max_episode_steps == 200
    assert make_env("Pendulum-v1", env_kwargs={"max_episode_steps": 7}).spec.max_episode_steps == 7
    endless = make_env("Pendulum-v1", env_kwargs={"max_episode_steps": -1})
    assert endless.spec.max_episode_steps is None
    endless.reset(seed=0)
    assert not any(endless.step(np.zeros((1, 1))).truncated[0] for _ in range(210))
    vector = gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync")
    assert make_env(vector).spec.max_episode_steps == 200
    assert make_env(Report).spec.env_id == "Report"


def processes_of(env: VecEnv):
    inner = env._vector_env
    assert isinstance(inner, AsyncVectorEnv)
    return inner.processes


class Suicide(Report):
    def step(self, action):
        os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def test_ctrl_c_leaves_the_processes_alive_to_be_saved():
    env = make_env("Pendulum-v1", num_envs=2, parallel=True)
    env.reset(seed=0)
    for process in processes_of(env):
        os.kill(cast("int", process.pid), signal.SIGINT)
    env.step(np.zeros((2, 1)))
    assert len(env.state_dict()["sub_envs"]) == 2
    env.close()


@pytest.mark.parametrize("when", ["between_steps", "in_step"])
def test_a_dead_process_is_reported(when):
    env = make_env([Report, Suicide] if when == "in_step" else [Report, Report], parallel=True)
    env.reset(seed=0)
    processes = processes_of(env)
    if when == "between_steps":
        processes[1].kill()
        processes[1].join()
    with pytest.raises(SlipstreamError, match="a process that runs Report died"):
        env.step(np.zeros((2, 1)))
    env.close()
    env.close()
    assert not any(process.is_alive() for process in processes)


def test_closing_after_a_process_died_ends_the_others():
    env = make_env("Pendulum-v1", num_envs=2, parallel=True)
    env.reset(seed=0)
    processes = processes_of(env)
    processes[0].kill()
    processes[0].join()
    env.close()
    assert not any(process.is_alive() for process in processes)
