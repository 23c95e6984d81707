"""Run contenders side by side: one process each, one thread, one core, in turns.

Turns (A B C A B C ...) spread whatever else the machine does evenly over the contenders; medians
over the turns then compare like with like. Each contender measures itself in a process of its
own, so that its peak memory is its own too.
"""

import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}

Measurement = dict[str, float]


@dataclass(frozen=True)
class Clock:
    """Wall-clock and CPU seconds at one moment."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Clock":
        """Read both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def rates(self, count: int) -> Measurement:
        """`count` events since this reading: per second and per CPU-second, and the peak memory."""
        now = Clock.now()
        return {
            "per_second": count / (now.wall - self.wall),
            "per_cpu_second": count / (now.cpu - self.cpu),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def use_one_core() -> None:
    """Stay on one core, where the system lets a process choose."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def take_turns(
    module: str,
    contenders: Sequence[str],
    repeats: int,
    arguments: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> dict[str, list[Measurement]]:
    """Run `python -m module --contender NAME arguments...` `repeats` times for each, in turns.

    A contender prints its measurement as JSON on its last line.

    Raises:
        RuntimeError: a contender failed; its output is in the message.
    """
    measurements: dict[str, list[Measurement]] = {name: [] for name in contenders}
    for turn in range(repeats):
        for name in contenders:
            command = [sys.executable, "-m", module, "--contender", name, *arguments]
            done = subprocess.run(
                command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr}")
            measurement: Measurement = json.loads(done.stdout.splitlines()[-1])
            measurements[name].append(measurement)
            report(
                f"turn {turn + 1}/{repeats}  {name:28s} {measurement['per_second']:8.1f}/s  "
                f"{measurement['per_cpu_second']:8.1f}/cpu-s  {measurement['peak_mb']:6.0f} MB"
            )
    return measurements


def medians(measurements: Mapping[str, Sequence[Measurement]]) -> dict[str, Measurement]:
    """The median of each quantity over a contender's turns."""
    return {
        name: {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
        for name, turns in measurements.items()
    }


def table(summary: Mapping[str, Measurement], reference: str, unit: str) -> str:
    """A markdown table of medians, with each rate as a multiple of the reference's."""
    lines = [
        f"| contender | {unit}/s | ratio | {unit}/CPU-s | ratio | peak MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    base = summary[reference]
    for name, row in summary.items():
        wall, cpu = row["per_second"], row["per_cpu_second"]
        lines.append(
            f"| {name} | {wall:.1f} | {wall / base['per_second']:.2f} "
            f"| {cpu:.1f} | {cpu / base['per_cpu_second']:.2f} | {row['peak_mb']:.0f} |"
        )
    return "\n".join(lines)


def write_results(
    name: str, command: str, settings: Mapping[str, Any], results: Mapping[str, Any], text: str
) -> None:
    """Write `results/NAME.json` (every turn, the settings, the machine) and `results/NAME.md`."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "settings": dict(settings),
        "results": dict(results),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    where = f"{record['machine']['processor']} ({record['machine']['vector_instructions']})"
    where += f", one core, {record['date']}"
    (RESULTS / f"{name}.md").write_text(f"`{command}` on {where}.\n\n{text}\n")


def machine() -> dict[str, str]:
    """The processor and the versions that decide speed."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0].split(":", 1)[1].strip() if models else processor
    return {
        "processor": processor,
        # Decides which library wins a matrix product, and by how much.
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "gymnasium", "mujoco")},
    }
