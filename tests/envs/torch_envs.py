"""Vector environments that speak torch."""

from contextlib import contextmanager
from unittest import mock

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper


class TorchDialect(VectorWrapper):
    """Takes tensors, and shows tensors that it overwrites with the next step."""

    device = torch.device("cpu")

    def __init__(self, env):
        super().__init__(env)
        self._buffer = None

    def reset(self, *, seed=None, options=None):
        obs, infos = self.env.reset(seed=seed, options=options)
        return self._in_buffer(obs), infos

    def step(self, actions):
        assert isinstance(actions, torch.Tensor)
        obs, reward, terminated, truncated, infos = self.env.step(actions.numpy())
        ends = torch.as_tensor(terminated), torch.as_tensor(truncated)
        return self._in_buffer(obs), torch.as_tensor(reward), *ends, infos

    def _in_buffer(self, obs):
        obs = torch.as_tensor(np.array(obs))
        self._buffer = obs if self._buffer is None else self._buffer.copy_(obs)
        return self._buffer


class TorchCounter(VectorEnv):
    """Counts steps, the i-th environment to `lengths[i]`, all in tensors; actions are its reward.

    Attributes:
        taken: the actions of every step, as they came.
        broken_at: the count that is shown with a component that is not a number; None for none.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 - gymnasium's own

    def __init__(self, lengths=(2, 3, 5), device="cpu"):
        self.device = torch.device(device)
        self.num_envs = len(lengths)
        self.lengths = torch.tensor(lengths, device=self.device)
        self.single_observation_space = gym.spaces.Dict(
            {
                "state": gym.spaces.Box(-np.inf, np.inf, (5,), np.float64),
                "rgb": gym.spaces.Box(0, 255, (32, 32, 3), np.uint8),
            }
        )
        low, high = np.array([-1, 0], np.float32), np.array([3, 0.5], np.float32)
        self.single_action_space = gym.spaces.Box(low, high)
        self.count = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        self.taken = []
        self.broken_at: int | None = None

    def _obs(self):
        state = self.count.double()[:, None].repeat(1, 5)
        if self.broken_at is not None:
            state[:, 3] = torch.where(self.count == self.broken_at, torch.nan, state[:, 3])
        rgb = self.count.byte()[:, None, None, None].expand(-1, 32, 32, 3)
        return {"state": state, "rgb": rgb}

    def reset(self, *, seed=None, options=None):
        if options is None:
            self.count[:] = 0
        else:
            self.count[torch.as_tensor(options["reset_mask"], device=self.device)] = 0
        return self._obs(), {}

    def step(self, actions):
        self.taken.append(actions)
        self.count += 1
        ended = self.count >= self.lengths
        even = torch.arange(self.num_envs, device=self.device) % 2 == 0
        info = {"success": self.count == 2}
        return self._obs(), actions.sum(1), ended & even, ended & ~even, info


@contextmanager
def host_transfers():
    """Yield a list of the shapes of all tensors that are brought to the host meanwhile."""
    shapes = []

    def noted(name):
        method = getattr(torch.Tensor, name)

        def call(self, *args, **kwargs):
            shapes.append(tuple(self.shape))
            return method(self, *args, **kwargs)

        return mock.patch.object(torch.Tensor, name, call)

    # `fetch` calls `cpu` and then `numpy`: only what goes without the first is counted twice.
    with noted("cpu"), noted("__array__"), noted("tolist"), noted("item"), noted("__bool__"):
        yield shapes
