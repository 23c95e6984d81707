"""A small team on an environment that shows images."""

from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import torch

from slipstream.envs.making import make_env
from slipstream.envs.vec_env import VecEnv
from slipstream.networks.cnn import CNNConfig
from slipstream.stages.interact import Interaction
from slipstream.stages.stage import Stage
from slipstream.stages.team import Team
from tests.stages.teams import CONFIG

CNN = CNNConfig(channels=(4,), kernels=(4,), strides=(4,), embed_size=6, segment=4, shift=1)


class Picture(gym.Env):
    """Shows a random image, and beside it what it is about, or the image alone."""

    def __init__(self, alone: bool = False) -> None:
        image = gym.spaces.Box(0, 255, (12, 12, 3), np.uint8)
        state = gym.spaces.Box(-1, 1, (2,))
        self.observation_space = gym.spaces.Dict(rgb=image, privileged=state)
        if alone:
            self.observation_space = image
        self.alone = alone
        self.action_space = gym.spaces.Box(-1, 1, (1,))

    def _obs(self):
        image = self.np_random.integers(0, 256, (12, 12, 3), np.uint8)
        if self.alone:
            return image
        state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"rgb": image, "privileged": state}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        return self._obs(), float(action[0]), False, self.t == 9, {}


def picture() -> Picture:
    """For runs, by its import path."""
    return Picture(alone=True)


def make_team(
    privileged=("accelerator", "critic"), kind="mlp", **fields
) -> tuple[Team, Interaction, Stage, VecEnv]:
    """A team in its first stage, after 25 steps of two environments."""
    networks = fields.pop("networks", replace(CONFIG.networks, cnn=CNN))
    kinds = fields.pop("kinds", {**CONFIG.kinds, "accelerator": kind})
    config = replace(
        CONFIG, networks=networks, privileged=privileged, kinds=kinds, num_envs=2, **fields
    )
    torch.manual_seed(0)
    env = make_env(partial(Picture), num_envs=2)
    team = Team(config, env.spec, lambda: make_env(Picture))
    stage = team.enter("accelerate" if "accelerator" in kinds else "online")
    interaction = Interaction(env, team.replay, team.normalizers)
    interaction.begin(stage.collector, seed=0)
    for _ in range(25):
        interaction.step(stage.collector, stage.learner.explore)
    return team, interaction, stage, env
