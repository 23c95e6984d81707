"""Record episodes of swing_up.py on Pendulum-v1 as a Minari dataset."""

import sys

import gymnasium as gym
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from swing_up import act

env = gym.make("Pendulum-v1")
rng = np.random.default_rng(0)
episodes = []
for seed in range(int(sys.argv[1])):
    obs, _ = env.reset(seed=seed)
    observations, actions, rewards, terminations, truncations = [obs], [], [], [], []
    while not (terminations and (terminations[-1] or truncations[-1])):
        # Noise, so that the data shows what other actions are worth.
        action = np.clip(act(obs) + rng.normal(0, 0.3, 1), -2, 2).astype(np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        observations.append(obs)
        actions.append(action)
        rewards.append(float(reward))
        terminations.append(terminated)
        truncations.append(truncated)
    episodes.append(
        EpisodeBuffer(
            observations=observations,
            actions=actions,
            rewards=rewards,
            terminations=terminations,
            truncations=truncations,
        )
    )
minari.create_dataset_from_buffers("pendulum/swing-up-v0", episodes, env="Pendulum-v1")
