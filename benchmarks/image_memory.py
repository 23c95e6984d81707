"""What the replay of an image run takes: rows by what a row holds.

`python -m benchmarks.image_memory` writes `benchmarks/results/image_memory.md`. The figures are
those by which a run decides whether it fits (`ReplayBuffer.bytes_required`); nothing is allocated.
"""

from pathlib import Path

from slipstream.networks.cnn import CNNConfig
from slipstream.replay import ReplayBuffer
from slipstream.spec import PRIVILEGED, SIM_STATE, ArraySpec, EnvSpec
from slipstream.stages.memory import embedded

ROWS = (5_000, 10_000, 20_000, 100_000)
CONTEXT = 3
FRAME = ArraySpec((64, 64, 3), "uint8")
# What each task shows at 64 pixels: (whole state, simulator's state, action components).
TASKS = {"HalfCheetah-v5": (17, 18, 6), "PullCube-v1": (35, 70, 8)}
TARGET = Path(__file__).parent / "results" / "image_memory.md"


def holdings(task: str) -> dict[str, EnvSpec]:
    """What a row may hold -> its spec."""
    state, sim_state, action_dim = TASKS[task]

    def spec(**obs: ArraySpec) -> EnvSpec:
        return EnvSpec(task, obs, (-1.0,) * action_dim, (1.0,) * action_dim)

    whole = ArraySpec((state,))
    frames = spec(rgb=FRAME, **{PRIVILEGED: whole})
    # A window of frames with every row, and another for the observation after it.
    stacked = ArraySpec((2, CONTEXT, *FRAME.shape), "uint8")
    return {
        "frames, each once": frames,
        f"frames in windows of {CONTEXT}, obs and next obs (the authors' layout)": spec(
            rgb=stacked
        ),
        "simulator states (stage 1 of `quick`)": spec(
            **{PRIVILEGED: whole, SIM_STATE: ArraySpec((sim_state,), "float64")}
        ),
        "embeddings (stage 2 of `quick`)": embedded(frames, CNNConfig().embed_size, beside=False),
    }


def table() -> str:
    """Megabytes (10^6 bytes) of every combination, as Markdown."""
    lines = [
        f"| task | a row holds | {' | '.join(f'{rows:,} rows' for rows in ROWS)} |",
        f"|---|---|{'---|' * len(ROWS)}",
    ]
    for task in TASKS:
        for what, spec in holdings(task).items():
            sizes = (ReplayBuffer.bytes_required(spec, rows) / 1e6 for rows in ROWS)
            lines.append(f"| {task} | {what} | {' | '.join(f'{size:,.1f}' for size in sizes)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    TARGET.write_text(
        f"{table()}\n\nMegabytes, from `python -m benchmarks.image_memory`. Action, reward and the "
        "whole state, which accelerator and critic read, are counted in; the authors' layout has "
        "no such state.\n"
    )
    print(TARGET.read_text())
