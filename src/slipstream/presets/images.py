"""Starting points for learning from images."""

from dataclasses import replace

from slipstream.config import EvalConfig, RunConfig
from slipstream.envs.film import VideoConfig
from slipstream.envs.maniskill.tasks import is_maniskill
from slipstream.envs.setup import EnvConfig
from slipstream.presets.manipulation import for_manipulation, suited
from slipstream.stages.accelerate import AccelerateConfig
from slipstream.stages.imitation import CloningConfig
from slipstream.stages.online import OnlineConfig
from slipstream.stages.switch import SwitchConfig


def quick(env_id: str) -> RunConfig:
    """From images in minutes on one core, taught by an accelerator that sees the state."""
    config = RunConfig(
        env_id=env_id,
        preset="quick",
        privileged=("accelerator", "critic"),
        # Nothing is cloned before it is needed: rendering and encoding are what costs here.
        cloning=CloningConfig(every=0, burst=1_200, own_episodes=3),
        switch=SwitchConfig(rule="at_step", latest=0.7),
        total_steps=40_000,
        env=EnvConfig(obs="rgb"),
        accelerate=AccelerateConfig(replay_capacity=50_000),
        online=OnlineConfig(eval_every=3_000),
        eval=EvalConfig(every=7_000, episodes=3),
        video=VideoConfig(enabled=True, when=("end",)),
    )
    return _quick_maniskill(config) if is_maniskill(env_id) else config


def _quick_maniskill(config: RunConfig) -> RunConfig:
    """The same for ManiSkill, whose images cost ten times as much, and whose steps are dear too."""
    config = for_manipulation(config)
    return replace(
        config,
        total_steps=24_000,
        env=replace(config.env, obs="rgb+state"),
        cloning=replace(config.cloning, burst=1_000, own_episodes=20, frames=5_000),
        switch=SwitchConfig(rule="at_step", latest=0.8),
        # Stage 2 takes along the rows that were rendered to be cloned from.
        online=OnlineConfig(utd_ratio=0.5, carry_rows=5_000, eval_every=1_000),
        eval=EvalConfig(every=10_000, episodes=20),
    )


def cnn(env_id: str) -> RunConfig:
    """From images alone, a CNN first: encoder shared with the critics, random shifts (DrQ-v2)."""
    return suited(
        RunConfig(
            env_id=env_id,
            preset="cnn",
            utd_ratio=0.5,
            env=EnvConfig(obs="rgb"),
            cloning=CloningConfig(every=0, burst=1_000),
            # A frame is 12 KiB: 50,000 of them are 615 MB.
            accelerate=AccelerateConfig(replay_capacity=50_000),
            eval=EvalConfig(every=10_000, episodes=5),
        )
    )
