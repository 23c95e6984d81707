"""How fast is one TD3 update of the transformer, and how much memory does it take?

    python -m benchmarks.update_speed [--repeats 5] [--seconds 6]

HalfCheetah's sizes (17 observations, 6 actions), batch 256; d_model 256, one layer, two heads,
d_ff 512; twin critics of 2x256 on the last observation; policy delay 2; contexts 3 and 10. The
batches are made beforehand, so that the update alone is timed. Contenders: a plain full-sequence
TD3 (`plain_td3`), and Slipstream with each of its backends for matrix products. A run of Slipstream
picks one of them by a short measurement at its start; the result says which.
"""

import json
from dataclasses import dataclass

import torch
import tyro

from benchmarks.contest import Clock, medians, table, take_turns, use_one_core, write_results
from benchmarks.plain_td3 import PlainActor, PlainCritic, PlainTD3
from slipstream.batch import Batch
from slipstream.networks import NetworksConfig, build_actor, build_critic
from slipstream.networks.critic import CriticConfig
from slipstream.networks.linear import (
    Backend,
    fastest_matmul_backend,
    onednn_available,
    set_matmul_backend,
)
from slipstream.networks.transformer import TransformerConfig
from slipstream.spec import ArraySpec, EnvSpec
from slipstream.stages.learners import AlgorithmsConfig, Learner, build_learner, frozen_copy
from slipstream.training.machine import keep_freed_memory

OBS_SIZE, ACTION_DIM, BATCH_SIZE, WIDTH = 17, 6, 256, 256
D_MODEL, N_LAYERS, N_HEADS, D_FF = 256, 1, 2, 512
NUM_BATCHES = 8

PLAIN = "Plain full sequence"
BACKENDS: dict[str, Backend] = {
    "Slipstream, default products": "default",
    "Slipstream, oneDNN products": "onednn",
    "Slipstream, bf16 products": "bf16",
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    repeats: int = 5
    """Turns of each contender."""
    seconds: float = 6.0
    """Time measured in each turn."""
    contexts: tuple[int, ...] = (3, 10)
    """Lengths of the window."""
    contender: str | None = None
    """Measure this one alone, at the first of the contexts, and print JSON."""


def make_batches(context_length: int) -> list[Batch]:
    """Windows of noise, full length."""
    torch.manual_seed(0)
    shape = (BATCH_SIZE, context_length)
    mask = torch.zeros(shape)
    mask[:, -1] = 1.0
    return [
        Batch(
            window={"state": torch.randn(BATCH_SIZE, context_length + 1, OBS_SIZE)},
            action=torch.rand(*shape, ACTION_DIM) * 2 - 1,
            reward=torch.randn(shape),
            terminated=torch.zeros(shape),
            valid=torch.ones(BATCH_SIZE, context_length + 1, dtype=torch.bool),
            mask=mask,
        )
        for _ in range(NUM_BATCHES)
    ]


def make_slipstream(context_length: int) -> Learner:
    """Slipstream's TD3 at the benchmark's sizes."""
    bounds = (1.0,) * ACTION_DIM
    spec = EnvSpec(
        "benchmark", {"state": ArraySpec((OBS_SIZE,))}, tuple(-b for b in bounds), bounds
    )
    # LayerNorm off, as in the peer: the comparison is of the same arithmetic.
    config = NetworksConfig(
        transformer=TransformerConfig(context_length, D_MODEL, N_LAYERS, N_HEADS, D_FF),
        critic=CriticConfig(hidden=(WIDTH, WIDTH), layer_norm=False),
    )
    actor = build_actor("transformer", "deterministic", spec, ("state",), config, {})
    critic = build_critic(spec, ("state",), config, layer_norm=False, normalizers={})
    return build_learner("td3", AlgorithmsConfig(), actor, critic, frozen_copy(critic))


def make_plain(context_length: int) -> PlainTD3:
    """The peer at the benchmark's sizes."""
    actor = PlainActor(OBS_SIZE, ACTION_DIM, context_length, D_MODEL, N_HEADS, D_FF, N_LAYERS)
    return PlainTD3(actor, PlainCritic(OBS_SIZE, ACTION_DIM, WIDTH))


def measure(contender: str, context_length: int, seconds: float) -> dict[str, float]:
    """Updates a second of one contender, in this process."""
    use_one_core()
    torch.set_num_threads(1)
    batches = make_batches(context_length)
    if contender == PLAIN:
        plain = make_plain(context_length)
        # The plain learner takes the last step's columns, cut here once and not in its time.
        rows = [
            (b.window["state"], b.action[:, -1], b.reward[:, -1:], b.terminated[:, -1:])
            for b in batches
        ]

        def update(i: int) -> None:
            plain.update(*rows[i % NUM_BATCHES])
    else:
        keep_freed_memory()  # as every run does
        set_matmul_backend(BACKENDS[contender])
        ours = make_slipstream(context_length)

        def update(i: int) -> None:
            ours.update(batches[i % NUM_BATCHES])

    for i in range(20):
        update(i)
    clock, count = Clock.now(), 0
    while Clock.now().wall - clock.wall < seconds:
        for _ in range(10):
            update(count)
            count += 1
    return clock.rates(count)


def main(options: Options) -> None:
    """Measure all contenders in turns, or one alone."""
    if options.contender is not None:
        print(json.dumps(measure(options.contender, options.contexts[0], options.seconds)))
        return
    ours = [name for name, kind in BACKENDS.items() if kind == "default" or onednn_available()]
    torch.set_num_threads(1)  # as in a run
    picked = fastest_matmul_backend()
    results, parts = {}, []
    for context in options.contexts:
        print(f"context {context}")
        turns = take_turns(
            "benchmarks.update_speed",
            [PLAIN, *ours],
            options.repeats,
            ["--contexts", str(context), "--seconds", str(options.seconds)],
        )
        summary = medians(turns)
        results[f"context {context}"] = {"medians": summary, "turns": turns}
        parts.append(f"Context {context}:\n\n" + table(summary, PLAIN, "updates"))
        print(parts[-1])
    parts.append(f"A run on this machine picks the backend `{picked}`.")
    command = (
        f"python -m benchmarks.update_speed --repeats {options.repeats} "
        f"--seconds {options.seconds:g}"
    )
    settings = {
        "obs_size": OBS_SIZE, "action_dim": ACTION_DIM, "batch_size": BATCH_SIZE,
        "d_model": D_MODEL, "n_layers": N_LAYERS, "n_heads": N_HEADS, "d_ff": D_FF,
        "critic": [WIDTH, WIDTH], "policy_delay": 2,
        "picked_backend": picked,
    }  # fmt: skip
    write_results("update_speed", command, settings, results, "\n\n".join(parts))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
