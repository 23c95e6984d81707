"""How much sooner is a policy cloned that starts from its teacher's encoder, or reads by it?

    python -m benchmarks.copied_encoder [--seeds 3]

On ProbeImage, whose answer is known: a CNN accelerator learns for 700 updates of SAC; then a
transformer is cloned from it: behind an encoder of its own from random weights, behind one with
`cloning.copy_encoder`, and by the encoder that the critics lend the accelerator too.
"""

from dataclasses import dataclass, replace

import torch
import tyro

from benchmarks.contest import use_one_core, write_results
from slipstream.config import RunConfig, team_config
from slipstream.envs.setup import open_env
from slipstream.networks import build_actor
from slipstream.networks.linear import set_matmul_backend
from slipstream.presets import preset
from slipstream.replay.buffer import ReplayBuffer
from slipstream.stages.frames import SingleEnv
from slipstream.stages.imitation import Imitation
from slipstream.stages.interact import Interaction
from slipstream.stages.learners import algorithm_class
from slipstream.stages.stage import Stage
from slipstream.stages.team import Team

COPIED, SHARED = "copied", "shared with the critics"
NUM_RANDOM, NUM_STEPS = 300, 1_000
AFTER = (50, 100, 200, 300)
"""Cloning updates after which the error is told, averaged over the 50 before."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: int = 3
    """Accelerators, each cloned in every way."""


def make_config() -> RunConfig:
    """One frame of 32 x 32 pixels an episode; small batches."""
    start = preset("cnn", "slipstream/ProbeImage-v0")
    networks, sac = start.networks, start.algorithms.sac
    return replace(
        start,
        batch_size=32,
        env=replace(start.env, obs="state"),  # the probe's own image
        networks=replace(
            networks,
            cnn=replace(networks.cnn, segment=1),
            mlp=replace(networks.mlp, frame_stack=1),
            critic=replace(networks.critic, frame_stack=1),
            transformer=replace(networks.transformer, context_length=1),
        ),
        algorithms=replace(start.algorithms, sac=replace(sac, actor_lr=1e-3, alpha=0.1)),
        cloning=replace(start.cloning, batch_size=32, burst=0),
        accelerate=replace(start.accelerate, replay_capacity=2 * NUM_STEPS),
    )


def taught(config: RunConfig, seed: int) -> tuple[Team, Stage]:
    """An accelerator that has learnt."""
    torch.manual_seed(seed)
    env = open_env(config.env_id, config.env, 1)
    team = Team(team_config(config), env.spec, lambda: env)
    stage = team.enter("accelerate")
    interaction = Interaction(env, team.replay, {})
    interaction.begin(stage.collector, seed)
    for step in range(NUM_STEPS):
        interaction.step(stage.collector, stage.explore, random=step < NUM_RANDOM)
        if step >= NUM_RANDOM:
            stage.learn(1)
    return team, stage


def errors(config: RunConfig, team: Team, stage: Stage, way: str, seed: int) -> list[float]:
    """Mean squared action error after so many cloning updates."""
    torch.manual_seed(1_000 + seed)
    head = algorithm_class(config.algorithm).head
    keys = tuple(team.spec.obs)
    student = build_actor("transformer", head, team.spec, keys, config.built_networks, {})
    if way == SHARED:
        student.inputs.borrow(team.critic.inputs)
    imitation = Imitation(
        replace(config.cloning, copy_encoder=way == COPIED),
        student=student,
        teacher=stage.collector,
        critic=team.critic,
        replay=team.replay,
        extra_env=SingleEnv(lambda: open_env(config.env_id, config.env, 1)),
        extra=ReplayBuffer(team.spec, 2),
        frames=None,
        segment=1,
        seed=seed,
    )
    imitation.prepare_check()
    found = [float(imitation.update()["action_error"]) for _ in range(AFTER[-1])]
    return [sum(found[n - 50 : n]) / 50 for n in AFTER]


def main(options: Options) -> None:
    """Clone in every way for each seed; write the table."""
    use_one_core()
    torch.set_num_threads(1)
    set_matmul_backend("default")
    config = make_config()
    rows: dict[str, list[list[float]]] = {"from random weights": [], COPIED: [], SHARED: []}
    for seed in range(options.seeds):
        team, stage = taught(config, seed)
        for way, found in rows.items():
            found.append(errors(config, team, stage, way, seed))
    lines = ["| encoder | " + " | ".join(f"{n} updates" for n in AFTER) + " |"]
    lines.append("|---|" + "---:|" * len(AFTER))
    for name, found in rows.items():
        means = [sum(column) / len(column) for column in zip(*found, strict=True)]
        lines.append(f"| {name} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |")
    text = "\n".join(lines)
    print(text)
    command = f"python -m benchmarks.copied_encoder --seeds {options.seeds}"
    write_results("copied_encoder", command, {"steps": NUM_STEPS}, rows, text)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
