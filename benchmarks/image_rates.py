"""How many steps and images a second does one core give?

    python -m benchmarks.image_rates [--repeats 3] [--seconds 4]

For each environment: steps that show the state; steps that show a 64 x 64 image; images made on
demand from stored states; and, of MuJoCo's, steps that show Gymnasium's own picture
(`AddRenderObservation` at the same size); of ManiSkill's, new scenes. One process each, its start
left out of the rates and measured by itself: from the start of Python to the first step.
"""

import importlib.util
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import tyro

from benchmarks.contest import Clock, Measurement, medians, take_turns, use_one_core, write_results
from slipstream.envs.gl import choose_backend
from slipstream.envs.pixels import render_state, sim_state
from slipstream.envs.setup import EnvConfig, open_single

SIZE = 64
MUJOCO = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5")
MANISKILL = ("PullCube-v1", "PushCube-v1", "PickCube-v1", "MS-HopperStand-v1")
WAYS = ("state", "rgb", "on demand")
HEADINGS = {
    "state": "steps with the state",
    "rgb": "steps with an image",
    "on demand": "images on demand",
    "gymnasium": "steps with Gymnasium's picture",
    "new scene": "new scenes",
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    repeats: int = 3
    """Turns of each contender."""
    seconds: float = 4.0
    """Wall-clock seconds of each turn."""
    contender: str | None = None
    """Measure this one alone, `ENV / way`, and print JSON."""


def ready(env_id: str, way: str) -> Callable[[], Any]:
    """What is to be counted, set up and done once."""
    if way == "gymnasium":
        os.environ.setdefault("MUJOCO_GL", choose_backend())
        plain = gym.make(env_id, render_mode="rgb_array", width=SIZE, height=SIZE)
        return stepping(gym.wrappers.AddRenderObservation(plain))
    obs = "rgb" if way in ("rgb", "on demand") else "state"
    env = open_single(env_id, EnvConfig(obs=obs, image_size=SIZE))
    step = stepping(env)
    if way == "new scene":
        return lambda: env.reset(options={"reconfigure": True})
    if way != "on demand":
        return step
    states = []
    for _ in range(50):
        states.append(sim_state(env))
        step()
    order = iter(np.random.default_rng(0).integers(len(states), size=1_000_000))
    return lambda: render_state(env, states[next(order)])


def stepping(env: gym.Env[Any, Any]) -> Callable[[], Any]:
    """One step with a random action, and a new episode where one ended."""
    rng = np.random.default_rng(0)
    space: Any = env.action_space
    env.reset(seed=0)

    def step() -> None:
        action = rng.uniform(space.low, space.high).astype(space.dtype)
        *_, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()

    step()
    return step


def measure(name: str, seconds: float) -> Measurement:
    """Rates of one contender, in this process."""
    use_one_core()
    env_id, way = name.split(" / ")
    act = ready(env_id, way)
    start = time.process_time()
    for _ in range(5):
        act()
    clock, count = Clock.now(), 0
    while time.perf_counter() - clock.wall < seconds:
        act()
        count += 1
    return {**clock.rates(count), "start_cpu_seconds": start}


def rates_table(summary: dict[str, Measurement]) -> str:
    """Markdown: a row for each environment, a column for each way."""
    rows = [
        "| per CPU-second | "
        + " | ".join(HEADINGS.values())
        + " | peak MB | CPU s to start: state | with an image |"
    ]
    rows.append("|---|" + "---:|" * (len(HEADINGS) + 3))
    for env_id in dict.fromkeys(name.split(" / ")[0] for name in summary):
        found = [summary.get(f"{env_id} / {way}") for way in HEADINGS]
        rates = ["" if each is None else _short(each["per_cpu_second"]) for each in found]
        peak = max(each["peak_mb"] for each in found if each is not None)
        start = [summary[f"{env_id} / {way}"]["start_cpu_seconds"] for way in ("state", "rgb")]
        rows.append(
            f"| {env_id} | {' | '.join(rates)} | {peak:.0f} | {start[0]:.1f} | {start[1]:.1f} |"
        )
    return "\n".join(rows)


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def main(options: Options) -> None:
    """Measure all contenders in turns, or one alone."""
    if options.contender is not None:
        print(json.dumps(measure(options.contender, options.seconds)))
        return
    contenders = [f"{env_id} / {way}" for env_id in MUJOCO for way in (*WAYS, "gymnasium")]
    if importlib.util.find_spec("mani_skill") is not None:
        contenders += [f"{env_id} / {way}" for env_id in MANISKILL for way in (*WAYS, "new scene")]
    arguments = ["--seconds", str(options.seconds)]
    turns = take_turns("benchmarks.image_rates", contenders, options.repeats, arguments)
    summary = medians(turns)
    text = rates_table(summary)
    print(text)
    seconds = f"{options.seconds:g}"
    command = f"python -m benchmarks.image_rates --repeats {options.repeats} --seconds {seconds}"
    results = {"medians": summary, "turns": turns}
    write_results("image_rates", command, {"size": SIZE}, results, text)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
