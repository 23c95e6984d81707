"""How long does a transformer policy take to act once?

    python -m benchmarks.acting_latency [--repeats 5] [--steps 2000]

From an observation in numpy to an action in numpy, one step of an episode after another, for one
environment and for 16 side by side, at contexts 3, 10 and 64. HalfCheetah's sizes (17 observations,
6 actions) and the default transformer (`d_model` 64, one layer, two heads, `d_ff` 128). Contenders:
a plain full-sequence transformer that computes its whole window at every step (`plain_td3`),
Slipstream's `policy.step` as it is and compiled by torch, and the exported policy in ONNX Runtime.
"""

import dataclasses
import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from benchmarks.contest import Clock, medians, take_turns, use_one_core, write_results
from benchmarks.plain_td3 import PlainActor
from slipstream.config import RunConfig
from slipstream.envs.setup import EnvConfig
from slipstream.networks import NetworksConfig, build_actor
from slipstream.networks.transformer import TransformerConfig
from slipstream.policies.export import export_policy
from slipstream.policies.export.run_policy import Policy as Exported
from slipstream.policies.policy import Policy, describe_policy, load_policy
from slipstream.spec import ArraySpec, EnvSpec

OBS_SIZE, ACTION_DIM = 17, 6
NUM_ENVS = (1, 16)
WARM_UP = 100

PLAIN, EAGER = "Plain full sequence", "Slipstream"
COMPILED, ONNX = "Slipstream, torch.compile", "ONNX Runtime"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    repeats: int = 5
    """Turns of each contender."""
    steps: int = 2_000
    """Steps timed in each turn, for each number of environments."""
    contexts: tuple[int, ...] = (3, 10, 64)
    """Lengths of the window."""
    contender: str | None = None
    """Measure this one alone, at the first of the contexts, and print JSON."""
    policy: Path | None = None
    """With --contender: the folder that holds its policy."""


def make_policy(context_length: int) -> Policy:
    """A policy of the benchmark's sizes with random weights."""
    torch.manual_seed(0)
    bounds = (1.0,) * ACTION_DIM
    spec = EnvSpec(
        "benchmark", {"state": ArraySpec((OBS_SIZE,))}, tuple(-b for b in bounds), bounds
    )
    networks = NetworksConfig(transformer=TransformerConfig(context_length=context_length))
    config = RunConfig("benchmark", networks=networks)
    actor = build_actor("transformer", "squashed_gaussian", spec, ("state",), networks, {})
    described = describe_policy(config, spec, "transformer", ("state",))
    return Policy(actor.eval().requires_grad_(False), spec, EnvConfig(), described)


Act = Callable[[np.ndarray], np.ndarray]


def plain(context_length: int, num_envs: int) -> Act:
    """The peer: a window that is shifted and computed as a whole."""
    sizes = TransformerConfig()
    actor = PlainActor(
        OBS_SIZE, ACTION_DIM, context_length, sizes.d_model, sizes.n_heads, sizes.d_ff,
        sizes.n_layers,
    ).eval().requires_grad_(False)  # fmt: skip
    window = np.zeros((num_envs, context_length, OBS_SIZE), np.float32)

    def act(obs: np.ndarray) -> np.ndarray:
        window[:, :-1] = window[:, 1:]
        window[:, -1] = obs
        with torch.no_grad():
            return actor(torch.from_numpy(window)).numpy()

    return act


def stepped(policy: Policy, num_envs: int) -> Act:
    """Slipstream's own step."""
    memory = {"carry": policy.initial_carry(num_envs)}

    def act(obs: np.ndarray) -> np.ndarray:
        action, memory["carry"] = policy.step(obs, memory["carry"])
        return action

    return act


def contender(name: str, context_length: int, folder: Path, num_envs: int) -> Act:
    """What acts, from an observation (N, 17) to an action (N, 6)."""
    if name == PLAIN:
        return plain(context_length, num_envs)
    if name == ONNX:
        return Exported(str(folder / "onnx" / "policy.onnx"), num_envs).step
    policy = load_policy(folder / "safetensors")
    if name == COMPILED:
        torch._dynamo.reset()  # no traces of the other number of environments
        policy.module.compile(dynamic=False)
    return stepped(policy, num_envs)


def measure(name: str, context_length: int, folder: Path, steps: int) -> dict[str, float]:
    """Microseconds a step of one contender, in this process: medians and 99th percentiles."""
    use_one_core()
    torch.set_num_threads(1)
    rates: dict[str, float] = {}
    results: dict[str, float] = {}
    for num_envs in NUM_ENVS:
        act = contender(name, context_length, folder, num_envs)
        obs = np.random.default_rng(0).standard_normal((steps + WARM_UP, num_envs, OBS_SIZE))
        obs = obs.astype(np.float32)
        for each in obs[:WARM_UP]:
            act(each)
        times = np.empty(steps)
        clock = Clock.now()
        for i, each in enumerate(obs[WARM_UP:]):
            start = time.perf_counter()
            act(each)
            times[i] = time.perf_counter() - start
        rates = rates or clock.rates(steps)  # of one environment
        results[f"median_us_{num_envs}"] = float(np.median(times)) * 1e6
        results[f"p99_us_{num_envs}"] = float(np.quantile(times, 0.99)) * 1e6
    return {**rates, **results}


def latency_table(summary: dict[str, dict[str, float]]) -> str:
    """Markdown: a row for each contender."""
    columns = [
        f"{n} env{'s' * (n > 1)}, {what} (µs)" for n in NUM_ENVS for what in ("median", "p99")
    ]
    lines = [
        f"| contender | {' | '.join(columns)} | ratio, 1 env |",
        "|---|" + "---:|" * (len(columns) + 1),
    ]
    base = summary[PLAIN]["median_us_1"]
    for name, row in summary.items():
        cells = [row[f"{what}_us_{n}"] for n in NUM_ENVS for what in ("median", "p99")]
        figures = " | ".join(f"{cell:.0f}" for cell in cells)
        lines.append(f"| {name} | {figures} | {base / row['median_us_1']:.2f} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    """Measure all contenders in turns, or one alone."""
    if options.contender is not None:
        assert options.policy is not None
        context = options.contexts[0]
        result = measure(options.contender, context, options.policy, options.steps)
        print(json.dumps(result))
        return
    contenders = [PLAIN, EAGER, *([COMPILED] if shutil.which("g++") else []), ONNX]
    results, parts = {}, []
    for context in options.contexts:
        print(f"context {context}")
        policy = make_policy(context)
        with tempfile.TemporaryDirectory() as made:
            for to in ("onnx", "safetensors"):
                export_policy(policy, Path(made) / to, to)
            arguments = ["--contexts", context, "--steps", options.steps, "--policy", made]
            turns = take_turns(
                "benchmarks.acting_latency", contenders, options.repeats, list(map(str, arguments))
            )
        summary = medians(turns)
        results[f"context {context}"] = {"medians": summary, "turns": turns}
        parts.append(f"Context {context}:\n\n" + latency_table(summary))
        print(parts[-1])
    command = (
        f"python -m benchmarks.acting_latency --repeats {options.repeats} --steps {options.steps}"
    )
    if options.contexts != Options().contexts:
        command += f" --contexts {shlex.join(map(str, options.contexts))}"
    settings = {
        "obs_size": OBS_SIZE,
        "action_dim": ACTION_DIM,
        "num_envs": NUM_ENVS,
        "transformer": dataclasses.asdict(TransformerConfig()),
    }
    write_results("acting_latency", command, settings, results, "\n\n".join(parts))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
