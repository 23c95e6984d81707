"""Stable-Baselines3's SAC or TD3 on an environment, logged so that it stands beside our curves.

    python -m benchmarks.sb3_baseline HalfCheetah-v5 --algorithm sac --steps 60000 --seed 0 \
        --out runs/sb3/HalfCheetah-v5/sac/seed0

The library's default hyperparameters with two hidden layers of 256, one thread. Every environment
step is counted; evaluation is deterministic, on the same episode seeds each time, and its seconds
and steps are kept apart. `metrics.jsonl` is flushed line by line; a folder with a `done.json` is
finished and skipped, one without starts afresh.
"""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import SAC, TD3  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.monitor import Monitor  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.noise import NormalActionNoise  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True)
class Options:
    """What to run."""

    env_id: Annotated[str, tyro.conf.Positional]
    """A Gymnasium id."""
    out: Path
    """The folder to write."""
    algorithm: Literal["sac", "td3"] = "sac"
    """The learner."""
    steps: int = 60_000
    """Environment steps, the random ones at the start included."""
    seed: int = 0
    """Seed of networks, exploration and the training environment."""
    eval_every: int = 4000
    """Steps between evaluations; there is one at step 0 and one at the end too."""
    eval_episodes: int = 10
    """Episodes of an evaluation."""
    eval_seed: int = 1_000_000
    """Evaluation episode k is reset with seed eval_seed + k, as in a run of Slipstream."""


class Metrics:
    """metrics.jsonl: one object a line, on disk before the next is begun."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w")

    def write(self, **metrics: Any) -> None:
        """Append one line."""
        self.file.write(json.dumps(metrics) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())


class PeriodicEvaluation(BaseCallback):
    """Evaluates every `eval_every` counted steps and logs the training episodes between."""

    def __init__(self, options: Options, metrics: Metrics) -> None:
        super().__init__()
        self.options = options
        self.metrics = metrics
        self.env = gym.make(options.env_id)
        self.started = time.perf_counter()
        self.eval_seconds = 0.0
        self.cpu_started, self.eval_cpu = time.process_time(), 0.0
        self.eval_steps = 0

    def evaluate(self) -> None:
        """Play the episodes and log their returns."""
        before, cpu_before = time.perf_counter(), time.process_time()
        returns, lengths = [], []
        for k in range(self.options.eval_episodes):
            obs, _ = self.env.reset(seed=self.options.eval_seed + k)
            episode_return, length, done = 0.0, 0, False
            while not done:
                action, _ = self.model.predict(obs, deterministic=True)
                obs, reward, terminated, truncated, _ = self.env.step(action)
                episode_return += float(reward)
                length += 1
                done = terminated or truncated
            returns.append(episode_return)
            lengths.append(length)
        now = time.perf_counter()
        self.eval_seconds += now - before
        self.eval_cpu += time.process_time() - cpu_before
        self.eval_steps += sum(lengths)
        self.log(
            **{
                "eval/sb3/return": float(np.mean(returns)),
                "eval/sb3/return_std": float(np.std(returns)),
                "eval/sb3/returns": returns,
                "eval/sb3/length": float(np.mean(lengths)),
            }
        )
        print(
            f"{self.options.env_id} {self.options.algorithm} seed {self.options.seed}: "
            f"step {self.num_timesteps}, return {np.mean(returns):.0f}, "
            f"{now - self.started:.0f} s ({self.eval_seconds:.0f} s of them evaluation)",
            flush=True,
        )

    def log(self, **metrics: Any) -> None:
        """One line with the counters and clocks."""
        wall = time.perf_counter() - self.started
        self.metrics.write(
            step=self.num_timesteps,
            num_updates=getattr(self.model, "_n_updates", 0),
            eval_steps=self.eval_steps,
            wall_seconds=wall,
            cpu_seconds=time.process_time() - self.cpu_started - self.eval_cpu,
            **{"time/eval_seconds": self.eval_seconds},
            **metrics,
        )

    def _on_training_start(self) -> None:
        self.evaluate()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.log(
                    **{
                        "rollout/episode_return": float(info["episode"]["r"]),
                        "rollout/episode_length": int(info["episode"]["l"]),
                    }
                )
        return True

    def _on_rollout_end(self) -> None:
        # The updates of this step have not run yet; those of all steps before have.
        if self.num_timesteps % self.options.eval_every == 0:
            self.evaluate()


def make_model(options: Options) -> OffPolicyAlgorithm:
    """The learner with the library's defaults and two hidden layers of 256."""
    env = Monitor(gym.make(options.env_id))
    if options.algorithm == "sac":
        return SAC("MlpPolicy", env, policy_kwargs=_NETS, seed=options.seed, device="cpu")
    shape = env.action_space.shape or ()
    # TD3 explores with Gaussian noise of 0.1; the library leaves it to the caller.
    noise = NormalActionNoise(np.zeros(shape), 0.1 * np.ones(shape))
    return TD3(
        "MlpPolicy", env, action_noise=noise, policy_kwargs=_NETS, seed=options.seed, device="cpu"
    )


_NETS = {"net_arch": [256, 256]}


def main(options: Options) -> None:
    """Train, evaluate, log; do nothing if that was done before."""
    settings = {**asdict(options), "out": None, "library": version("stable-baselines3")}
    done = options.out / "done.json"
    if done.exists():
        if json.loads(done.read_text()) != settings:
            raise SystemExit(f"{options.out} holds a finished run of other settings; name another")
        print(f"{options.out} is finished")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    versions = {"python": platform.python_version()} | {
        name: version(name) for name in ("stable-baselines3", "torch", "gymnasium", "mujoco")
    }
    (options.out / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (options.out / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
    evaluation = PeriodicEvaluation(options, Metrics(options.out / "metrics.jsonl"))
    make_model(options).learn(options.steps, callback=evaluation)
    if evaluation.num_timesteps % options.eval_every:
        evaluation.evaluate()
    partial = done.with_suffix(".partial")
    partial.write_text(json.dumps(settings, indent=2) + "\n")
    partial.replace(done)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
