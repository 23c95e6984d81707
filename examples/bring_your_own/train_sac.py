"""Train a small SAC of Stable-Baselines3 on Pendulum-v1 behind VecNormalize, and save both."""

import sys

import gymnasium as gym
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

steps = int(sys.argv[1])
env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), norm_reward=False, gamma=0.98)
model = SAC(
    "MlpPolicy",
    env,
    gamma=0.98,
    learning_rate=1e-3,
    learning_starts=min(1000, steps // 2),
    policy_kwargs={"net_arch": [64, 64]},
    seed=0,
)
model.learn(steps)
model.save("pendulum_sac.zip")
env.save("vecnormalize.pkl")
