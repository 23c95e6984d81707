"""What can be made a vectorised environment of, and processes that die in one."""

import os
import signal
from typing import cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv

from slipstream.envs.device_arrays import DeviceArrays
from slipstream.envs.making import make_env
from slipstream.envs.spaces import ActionScale, observation_spec, to_obs
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from slipstream.spec import ArraySpec
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
        (gym.spaces.Dict({"a.difference": BOX}), BOX, "the key 'a.difference'"),
        (gym.spaces.Dict(sim_state=BOX), BOX, "the key 'sim_state'"),
        (
            gym.spaces.Box(0, 1, (64, 64, 3)),
            BOX,
            r"images \(64, 64, 3\) of float32.*uint8, 0 to 255",
        ),
        (gym.spaces.Dict(a=gym.spaces.Box(0, 1, (1, 64, 64))), BOX, r"'a'.*images \(1, 64, 64\)"),
        (
            BOX,
            gym.spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (1,)),
            r"unbounded action: component 0 lies in \[-3\.4.*finite bounds",
        ),
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


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((9, 12), (9, 12, 1)),
        ((3, 9, 12), (9, 12, 3)),
        ((9, 12, 3), (9, 12, 3)),
        ((1, 9, 12), (9, 12, 1)),
        ((7, 9, 12), (9, 12, 7)),
        ((9, 12, 7), (9, 12, 7)),
        ((3, 12, 3), (3, 12, 3)),
        ((2, 2, 3), (2, 2, 3)),
        ((12, 12, 12), (12, 12, 12)),
    ],
)
@pytest.mark.parametrize("torch_speaking", [False, True])
def test_images_of_any_layout_have_their_channels_last(shape, expected, torch_speaking):
    space = gym.spaces.Box(0, 255, shape, np.uint8)
    spec = observation_spec(space, "it")
    assert spec == {"rgb": ArraySpec(expected, "uint8")}
    raw = np.stack([space.sample() for _ in range(2)])
    if torch_speaking:
        arrays = DeviceArrays(ActionScale(BOX, "it"), "cpu")
        seen = arrays.obs(torch.from_numpy(raw), spec)["rgb"].numpy()
    else:
        seen = to_obs(raw, spec)["rgb"]
    first = expected != shape and len(shape) == 3
    wanted = np.moveaxis(raw, 1, -1) if first else raw.reshape(2, *expected)
    assert np.array_equal(seen, wanted) and not np.shares_memory(seen, raw)


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Box(-1, 1, (5, 4)),
        gym.spaces.Box(-1, 1, (5, 4, 2)),
        gym.spaces.Box(0, 9, (2, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_flattened(space):
    assert observation_spec(space, "it") == {"state": ArraySpec((int(np.prod(space.shape)),))}


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
