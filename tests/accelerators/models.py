"""Tiny models of Stable-Baselines3, made when asked for, and files of them."""

import copy
import importlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from slipstream.config import RunConfig
from slipstream.envs.setup import open_env
from slipstream.spec import EnvSpec
from tests.tiny_runs import tiny

SETTINGS: dict[str, dict[str, Any]] = {
    "SAC": {"policy_kwargs": {"net_arch": [16, 8]}, "ent_coef": "auto_0.3"},
    "TD3": {"policy_kwargs": {"net_arch": {"pi": [12], "qf": [16, 8]}}},
    "DDPG": {"policy_kwargs": {"net_arch": [8, 8]}},
    "TQC": {"policy_kwargs": {"net_arch": [16, 8], "n_quantiles": 7, "n_critics": 3}},
    "PPO": {"policy_kwargs": {"net_arch": [16, 8]}, "n_steps": 32, "batch_size": 32},
    "A2C": {"policy_kwargs": {"net_arch": {"pi": [9], "vf": [4, 4]}}},
}
OFF_POLICY = ("SAC", "TD3", "DDPG", "TQC")


def library(name: str) -> Any:
    """The class of an algorithm; skips the test where its package is not installed."""
    package = "sb3_contrib" if name in ("TQC", "RecurrentPPO") else "stable_baselines3"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(pytest.importorskip(package), name)


def vec_env() -> Any:
    """The library's module of vector environments."""
    library("SAC")
    return importlib.import_module("stable_baselines3.common.vec_env")


def make_model(name: str, env: Any = "Pendulum-v1", policy: str = "MlpPolicy", **settings) -> Any:
    """A model with weights large enough that its inputs matter."""
    # Copied: the library writes into what it is given.
    settings = copy.deepcopy({**SETTINGS.get(name, {}), **settings})
    if name in OFF_POLICY:
        settings = {"buffer_size": 100, **settings}
    model = library(name)(policy, env, device="cpu", seed=0, **settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@cache
def saved_model(name: str) -> tuple[Any, bytes]:
    """A model on Pendulum-v1 and its file's bytes, made once."""
    model = make_model(name)
    file = io.BytesIO()
    model.save(file)
    return model, file.getvalue()


def write_model(folder: Path, name: str) -> tuple[Any, Path]:
    """A model, and a file of it in a folder."""
    model, content = saved_model(name)
    path = folder / f"{name.lower()}.zip"
    path.write_bytes(content)
    return model, path


def rewrite(path: Path, **parts: bytes | None) -> Path:
    """A copy of a zip file with other parts, or without those that are None.

    `policy` stands for the part `policy.pth`.
    """
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    for name, part in parts.items():
        name = name if name in content else f"{name}.pth"
        if part is None:
            del content[name]
        else:
            content[name] = part
    copy = path.with_name(f"{path.stem}-{len(list(path.parent.iterdir()))}.zip")
    with zipfile.ZipFile(copy, "w") as archive:
        for name, part in content.items():
            archive.writestr(name, part)
    return copy


class Touch:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def goes_off(content: bytes, path: Path) -> bool:
    """Whether loading these bytes as a pickle makes the file; it is removed again."""
    pickle.loads(content)
    found = path.exists()
    path.unlink(missing_ok=True)
    return found


def run_config(accelerator: Any, algorithm: str = "sac", **fields) -> RunConfig:
    """A tiny run on Pendulum-v1 with this accelerator, which learns if its kind can."""
    source = str(accelerator)
    scheme, _, place = source.partition(":")
    learns = scheme in ("sb3", "slipstream") and Path(place).stem not in ("ppo", "a2c")
    accelerate = replace(tiny().accelerate, learn=learns)
    return tiny(accelerator=source, algorithm=algorithm, **{"accelerate": accelerate, **fields})


def with_gamma(config: RunConfig, gamma: float) -> RunConfig:
    algorithms = config.algorithms
    chosen = replace(getattr(algorithms, config.algorithm), gamma=gamma)
    return replace(config, algorithms=replace(algorithms, **{config.algorithm: chosen}))


@cache
def pendulum() -> EnvSpec:
    return open_env("Pendulum-v1", tiny().env, 1).spec


def spec_of(config: RunConfig) -> EnvSpec:
    return open_env(config.env_id, config.env, 1, privileged=bool(config.privileged)).spec


def observations(number: int = 50, size: int = 3) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (3 * generator.normal(size=(number, size))).astype(np.float32)


def our_actions(actor: Any, obs: np.ndarray, key: str = "state") -> np.ndarray:
    """Actions of ours at these observations (B, n), in [-1, 1], step by step as over windows."""
    tensor = torch.as_tensor(obs)
    output, _ = actor.step({key: tensor}, actor.initial_carry(len(obs)))
    valid = torch.ones(len(obs), 1, dtype=torch.bool)
    with torch.no_grad():
        same = actor({key: tensor[:, None]}, valid).mode[:, 0]
    torch.testing.assert_close(output.mode, same)
    return output.mode.numpy()


def scaled(action: np.ndarray, space: Any) -> np.ndarray:
    """Actions in the environment's units, in [-1, 1]."""
    return 2 * (action - space.low) / (space.high - space.low) - 1


class Shows(gym.Env):
    """Nothing but what it shows."""

    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, True, False, {}
