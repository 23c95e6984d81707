"""Small data sets: of Minari, and the replays of tiny runs."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest


def minari() -> Any:
    """The library; skips the test where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("minari")


def act(obs: np.ndarray) -> np.ndarray:
    """A policy that data is recorded with, in Pendulum's units."""
    return 2 * np.tanh(obs[..., :1] - 0.3 * obs[..., 2:3]).astype(np.float32)


def buffers(num_episodes: int = 6, length: int = 20, terminate: bool = False) -> list[Any]:
    """Episodes of `act` on Pendulum; action noise grows from one to the next."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    env = gym.make("Pendulum-v1", max_episode_steps=length)
    rng = np.random.default_rng(0)
    found = []
    for i in range(num_episodes):
        obs, _ = env.reset(seed=i)
        observations, actions, rewards = [obs], [], []
        for _ in range(length):
            noise = 0.2 * i * rng.normal(size=1)
            action = np.clip(act(obs) + noise, -2, 2).astype(np.float32)
            obs, reward, *_ = env.step(action)
            observations.append(obs)
            actions.append(action)
            rewards.append(float(reward))
        ended = [False] * (length - 1) + [True]
        never = [False] * length
        found.append(
            EpisodeBuffer(
                observations=observations,
                actions=actions,
                rewards=rewards,
                terminations=ended if terminate else never,
                truncations=never if terminate else ended,
            )
        )
    return found


def write_dataset(
    root: Path, monkeypatch: Any, name: str = "pendulum/act-v0", env: Any = "Pendulum-v1", **fields
) -> Path:
    """A Minari dataset below `root`, where Minari is told to look; its folder.

    Fields other than `buffer` go to `minari.create_dataset_from_buffers`.
    """
    library = minari()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    buffer = fields.pop("buffer", None) or buffers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.create_dataset_from_buffers(name, buffer, env=env, **fields)
    return root / name
