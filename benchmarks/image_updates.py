"""What does one update cost where policy and critics learn from images?

    python -m benchmarks.image_updates [--repeats 3] [--seconds 6]

An MLP accelerator behind the default encoder and its critics, both with three frames of 64 x 64
pixels, batch 128 (16 windows of 8 steps), out of a replay of noise; shifts of up to 4 pixels.
Contenders: an encoder each and one for both, with and without random shifts. Then the transformer,
with shifts: being cloned, and in stage 2, with an encoder of its own, with the critics', and with
all encoders frozen.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
import tyro

from benchmarks.contest import (
    Clock,
    Measurement,
    medians,
    table,
    take_turns,
    use_one_core,
    write_results,
)
from slipstream.config import RunConfig, team_config
from slipstream.envs.setup import EnvConfig
from slipstream.networks.linear import set_matmul_backend
from slipstream.spec import ArraySpec, EnvSpec
from slipstream.stages.accelerate import AccelerateConfig
from slipstream.stages.imitation import Imitation
from slipstream.stages.learners import ALGORITHMS
from slipstream.stages.online import OnlineConfig
from slipstream.stages.stage import Stage
from slipstream.stages.team import Team
from slipstream.training.machine import keep_freed_memory

SPEC = EnvSpec("noise", {"rgb": ArraySpec((64, 64, 3), "uint8")}, (-1.0,) * 6, (1.0,) * 6)
NUM_ROWS, SHIFT = 2_000, 4
WAYS = {
    "an encoder each": (False, 0),
    "an encoder each, shifts": (False, SHIFT),
    "one encoder": (True, 0),
    "one encoder, shifts": (True, SHIFT),
}
"""Name -> whether the encoder is shared, and the shift in pixels."""
CLONES = {
    "an encoder each": (False, False),
    "one encoder": (True, None),
    "one encoder, frozen": (True, True),
}
"""Name -> whether the encoder is shared, and `online.freeze_encoder`."""
GROUPS = {
    **{algorithm: [f"{algorithm}, {way}" for way in WAYS] for algorithm in ("sac", "td3")},
    "cloning": [f"cloning, {way}" for way in list(CLONES)[:2]],
    "stage 2": [f"stage 2, {way}" for way in CLONES],
}
"""What is compared with each other, the first of each with the rest."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    repeats: int = 3
    """Turns of each contender."""
    seconds: float = 6.0
    """CPU time measured in each turn."""
    contender: str | None = None
    """Measure this one alone and print JSON."""


def make_stage(name: str) -> tuple[Team, Stage]:
    """A team and its first stage, with a replay of noise."""
    group, _, way = name.partition(", ")
    algorithm = group if group in ALGORITHMS else "sac"
    if group in ALGORITHMS:
        (share, shift), freeze = WAYS[way], None
    else:
        (share, freeze), shift = CLONES[way], SHIFT
    start = RunConfig(
        "noise",
        algorithm=algorithm,
        env=EnvConfig(obs="rgb"),
        accelerate=AccelerateConfig(replay_capacity=NUM_ROWS),
        online=OnlineConfig(replay_capacity=NUM_ROWS, freeze_encoder=freeze),
    )
    cnn = replace(start.networks.cnn, shift=shift)
    config = replace(start, networks=replace(start.networks, cnn=cnn, share_encoder=share))
    torch.manual_seed(0)

    def no_env() -> None:
        raise NotImplementedError

    team = Team(team_config(config), SPEC, no_env)  # pyright: ignore
    stage = team.enter("accelerate")
    frames = torch.randint(0, 256, (NUM_ROWS, 64, 64, 3), dtype=torch.uint8)
    stage.replay.begin({"rgb": frames[:1]})
    for row in frames[1:]:
        flag = torch.zeros(1, dtype=torch.bool)
        stage.replay.add(torch.rand(1, 6) * 2 - 1, torch.randn(1), flag, flag, {"rgb": row[None]})
    return team, stage


def measure(name: str, seconds: float) -> Measurement:
    """Rates of one contender, in this process."""
    use_one_core()
    keep_freed_memory()
    torch.set_num_threads(1)
    set_matmul_backend("default")
    team, stage = make_stage(name)
    learn: Callable[[int], object] = stage.learn
    if name.startswith("cloning"):
        learn = partial(_clone, stage)
    elif name.startswith("stage 2"):
        learn = team.enter("online", stage).learn
    learn(4)
    clock, count = Clock.now(), 0
    while Clock.now().cpu - clock.cpu < seconds:
        learn(2)  # of TD3's, every second one moves the policy
        count += 2
    return clock.rates(count)


def _clone(stage: Stage, num_updates: int) -> None:
    for _ in range(num_updates):
        cast("Imitation", stage.imitation).update()


def main(options: Options) -> None:
    """Measure all contenders in turns, or one alone."""
    if options.contender is not None:
        print(json.dumps(measure(options.contender, options.seconds)))
        return
    arguments = ["--seconds", str(options.seconds)]
    contenders = [name for names in GROUPS.values() for name in names]
    turns = take_turns("benchmarks.image_updates", contenders, options.repeats, arguments)
    summary = medians(turns)
    text = "\n\n".join(
        table(
            {name: row for name, row in summary.items() if name in names},
            names[0],
            "updates",
        )
        for names in GROUPS.values()
    )
    print(text)
    seconds = f"{options.seconds:g}"
    command = f"python -m benchmarks.image_updates --repeats {options.repeats} --seconds {seconds}"
    results = {"medians": summary, "turns": turns}
    write_results("image_updates", command, {"rows": NUM_ROWS, "shift": SHIFT}, results, text)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
