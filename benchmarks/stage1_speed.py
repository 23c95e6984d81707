"""How fast is stage 1 (TD3 on an MLP, one update for each environment step) beside SB3 and SBX?

    python -m benchmarks.stage1_speed [--repeats 3] [--steps 3000]

Hopper-v5, two hidden layers of 256 in policy and critics, batch 256, policy delay 2, one thread
and one core. The clock starts after 1000 random steps and 500 learning ones, so that neither the
random phase nor JAX's compilation is in it, and stops `steps` environment steps later. Slipstream
runs what its stage 1 runs for each step (interaction, replay, update), without cloning,
evaluation and logging: once with the peers' networks, once with the LayerNorm in the critics that
is its default for TD3. It uses whichever matrix product it measures to be faster here.
"""

import json
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

from benchmarks.contest import Clock, medians, table, take_turns, use_one_core, write_results
from slipstream.algorithms.td3 import TD3
from slipstream.envs.making import make_env
from slipstream.networks import NetworksConfig, build_actor, build_critic
from slipstream.networks.critic import CriticConfig
from slipstream.networks.linear import (
    Backend,
    bf16_available,
    fastest_matmul_backend,
    set_matmul_backend,
)
from slipstream.networks.mlp import MLPConfig
from slipstream.replay.buffer import ReplayBuffer
from slipstream.stages.interact import Interaction
from slipstream.stages.learners import AlgorithmsConfig, build_learner, frozen_copy
from slipstream.training.machine import keep_freed_memory

ENV_ID, WIDTH, BATCH_SIZE = "Hopper-v5", 256, 256
RANDOM_STEPS, SETTLING_STEPS = 1000, 500

SB3 = "SB3 (PyTorch)"
SBX = "SBX (JAX)"
SAME_NETS = "Slipstream, peers' networks"
LAYER_NORM = "Slipstream, LayerNorm critics"
BF16 = "Slipstream, peers' networks, bf16 products"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    repeats: int = 3
    """Turns of each contender."""
    steps: int = 3000
    """Environment steps measured in each turn."""
    contender: str | None = None
    """Measure this one alone and print JSON."""


class Stopwatch:
    """Called once for each environment step; reads the clocks after the settling steps."""

    def __init__(self, steps: int) -> None:
        self.first = RANDOM_STEPS + SETTLING_STEPS
        self.last = self.first + steps
        self.clock: Clock | None = None
        self.rates: dict[str, float] = {}

    def at(self, step: int) -> bool:
        """Note that `step` steps have been taken; False when the measurement is over."""
        if self.clock is None and step >= self.first:
            self.clock, self.first = Clock.now(), step
        elif self.clock is not None and step >= self.last and not self.rates:
            self.rates = self.clock.rates(step - self.first)
        return not self.rates


def measure_sb3_family(td3_class: Any, steps: int) -> dict[str, float]:
    """Either library: they share environment, buffer and loop, and differ in the learner."""
    from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.noise import NormalActionNoise  # pyright: ignore[reportMissingImports]

    stopwatch = Stopwatch(steps)

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return stopwatch.at(self.num_timesteps)

    env = gym.make(ENV_ID)
    shape = env.action_space.shape or ()
    model = td3_class(
        "MlpPolicy",
        env,
        learning_starts=RANDOM_STEPS,
        batch_size=BATCH_SIZE,
        train_freq=1,
        gradient_steps=1,
        policy_delay=2,
        action_noise=NormalActionNoise(np.zeros(shape), 0.1 * np.ones(shape)),
        policy_kwargs={"net_arch": [WIDTH, WIDTH]},
        seed=0,
        device="cpu",
    )
    model.learn(stopwatch.last + 100, callback=Watch())
    return stopwatch.rates


def measure_slipstream(
    layer_norm: bool, steps: int, backend: Backend | None = None
) -> dict[str, float]:
    """Stage 1 of this package; None takes the product that a run would take."""
    keep_freed_memory()  # as every run does, like the choice of the product
    set_matmul_backend(backend or fastest_matmul_backend())
    stopwatch = Stopwatch(steps)
    torch.manual_seed(0)
    env = make_env(ENV_ID)
    config = NetworksConfig(
        mlp=MLPConfig((WIDTH, WIDTH)), critic=CriticConfig(hidden=(WIDTH, WIDTH))
    )
    actor = build_actor("mlp", TD3.head, env.spec, ("state",), config, {})
    critic = build_critic(env.spec, ("state",), config, layer_norm, {})
    learner = build_learner("td3", AlgorithmsConfig(), actor, critic, frozen_copy(critic))
    replay = ReplayBuffer(env.spec, 100_000)
    interaction = Interaction(env, replay, {})
    interaction.begin(actor, seed=0)
    step = 0
    while stopwatch.at(step):
        interaction.step(actor, learner.explore, random=step < RANDOM_STEPS)
        step += 1
        if step > RANDOM_STEPS:
            learner.update(replay.sample(BATCH_SIZE))
    env.close()
    return stopwatch.rates


def measure(contender: str, steps: int) -> dict[str, float]:
    """Environment steps a second of one contender, in this process."""
    use_one_core()
    torch.set_num_threads(1)
    if contender in (SAME_NETS, LAYER_NORM, BF16):
        backend = "bf16" if contender == BF16 else None
        return measure_slipstream(contender == LAYER_NORM, steps, backend)
    if contender == SBX:
        import sbx  # pyright: ignore[reportMissingImports]

        return measure_sb3_family(sbx.TD3, steps)
    import stable_baselines3  # pyright: ignore[reportMissingImports]

    return measure_sb3_family(stable_baselines3.TD3, steps)


def main(options: Options) -> None:
    """Measure all contenders in turns, or one alone."""
    if options.contender is not None:
        print(json.dumps(measure(options.contender, options.steps)))
        return
    turns = take_turns(
        "benchmarks.stage1_speed",
        (SB3, SBX, SAME_NETS, LAYER_NORM, *([BF16] if bf16_available() else [])),
        options.repeats,
        ["--steps", str(options.steps)],
    )
    summary = medians(turns)
    text = table(summary, SB3, "steps")
    print(text)
    settings = {
        "env_id": ENV_ID, "hidden": [WIDTH, WIDTH], "batch_size": BATCH_SIZE, "utd_ratio": 1,
        "random_steps": RANDOM_STEPS, "settling_steps": SETTLING_STEPS, "steps": options.steps,
        "fastest_matmul_backend": fastest_matmul_backend(),
    }  # fmt: skip
    write_results(
        "stage1_speed",
        f"python -m benchmarks.stage1_speed --repeats {options.repeats} --steps {options.steps}",
        settings,
        {"medians": summary, "turns": turns},
        text,
    )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
