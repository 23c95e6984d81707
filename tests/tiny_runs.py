"""Whole runs in a second, and a process of one's own to kill while it runs one."""

import json
import multiprocessing
import os
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from slipstream.config import EnvConfig, EvalConfig, RunConfig
from slipstream.networks import NetworksConfig
from slipstream.networks.critic import CriticConfig
from slipstream.networks.mlp import MLPConfig
from slipstream.networks.transformer import TransformerConfig
from slipstream.stages.accelerate import AccelerateConfig
from slipstream.stages.imitation import CloningConfig
from slipstream.stages.online import OnlineConfig
from slipstream.stages.switch import SwitchConfig

TINY = RunConfig(
    env_id="Pendulum-v1",
    total_steps=240,
    batch_size=16,
    learning_starts=30,
    env=EnvConfig(max_episode_steps=20),
    eval=EvalConfig(every=60, episodes=2),
    networks=NetworksConfig(
        mlp=MLPConfig((16,)),
        transformer=TransformerConfig(d_model=8, d_ff=8),
        critic=CriticConfig(hidden=(16,)),
    ),
    cloning=CloningConfig(batch_size=16, every=10, burst=5),
    switch=SwitchConfig(rule="at_step", latest=0.5),
    accelerate=AccelerateConfig(replay_capacity=1_000),
    online=OnlineConfig(replay_capacity=150),
    matmul="default",
    log_every=30,
    checkpoint_every=40,
    tensorboard=False,
)


def tiny(**fields) -> RunConfig:
    return replace(TINY, **fields)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def timeless(run_dir: Path) -> list[dict[str, Any]]:
    """The log without what a clock said, and without the line that tells of a resume or branch."""
    return [
        {
            key: value
            for key, value in line.items()
            if key not in ("wall_seconds", "cpu_seconds") and not key.startswith("time/")
        }
        for line in lines(run_dir)
        if line.get("event") not in ("resume", "branch")
    ]


def events(run_dir: Path, name: str) -> list[dict[str, Any]]:
    return [line for line in lines(run_dir) if line.get("event") == name]


# One server process imports torch once; each child is forked from it, fresh, in milliseconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["slipstream.training", "slipstream.cli", "tests.tiny_runs"])


def in_child(folder: Path, function: Callable[..., Any], *args: Any) -> tuple[int, str, str]:
    """Run a function in a process of its own.

    Returns:
        Its exit status (negative: the signal that ended it), standard output and standard error.
    """
    out, err = folder / "stdout", folder / "stderr"
    process = _context.Process(target=_redirected, args=(out, err, function, args))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the child hangs"
    return process.exitcode, out.read_text(), err.read_text()


def _redirected(out: Path, err: Path, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    try:
        status = function(*args)
    except BaseException:
        traceback.print_exc()
        status = 1
    raise SystemExit(status)


def train_until(config: RunConfig, run_dir: Path, step: int, number: int) -> int:
    """Train by the command line, and send this very process a signal at a step."""
    at_step(step, lambda: os.kill(os.getpid(), number))
    return train_by_cli(config, run_dir)


def train_on_a_full_disk(config: RunConfig, run_dir: Path, step: int, num_bytes: int) -> int:
    """Train, with no file allowed to grow beyond a size from some step on."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    at_step(step, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard)))
    return train_by_cli(config, run_dir)


def train_by_cli(config: RunConfig, run_dir: Path) -> int:
    from slipstream.cli import main
    from slipstream.config import to_yaml

    path = run_dir.parent / f"{run_dir.name}.yaml"
    path.write_text(to_yaml(config))
    return main(
        ["train", config.env_id, "--config", str(path), "--run-dir", str(run_dir), "--quiet"]
    )


def resume_by_cli(path: Path) -> int:
    from slipstream.cli import main

    return main(["resume", str(path), "--quiet"])


def branch_by_cli(path: Path, run_dir: Path, *flags: str) -> int:
    from slipstream.cli import main

    return main(["branch", str(path), "--run-dir", str(run_dir), "--quiet", *flags])


def at_step(step: int, action: Callable[[], Any]) -> None:
    """Call something once, in the middle of the first loop that begins at or behind a step."""
    from slipstream.training import Trainer

    original, due = Trainer._learn, [True]

    def learn(trainer: Trainer, before: int) -> None:
        original(trainer, before)
        if due and trainer.state.step >= step:
            due.clear()
            action()

    setattr(Trainer, "_learn", learn)  # noqa: B010 - a plain assignment would not type
