"""Whole runs, both stages, and what they leave behind."""

import copy
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import slipstream
from slipstream.checkpoint import resolve
from slipstream.checkpoint.tree import load_tree
from slipstream.config import EnvConfig, load
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from slipstream.judging.evaluation import evaluate
from slipstream.judging.referee import Referee
from slipstream.stages.interact import rollout
from slipstream.stages.learners import ALGORITHMS
from slipstream.stages.online import OnlineConfig
from slipstream.stages.switch import SwitchConfig
from slipstream.training import describe, train
from tests.networks.policies import actor_of
from tests.tiny_runs import TINY, events, lines, tiny


def run(config, tmp_path, name="run"):
    return train(config, tmp_path / name, show_progress=False)


def with_key(run_dir, key):
    return [line for line in lines(run_dir) if key in line]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_both_stages_leave_the_run_folder_that_is_documented(algorithm, tmp_path):
    config = tiny(algorithm=algorithm, tensorboard=algorithm == "td3")
    run_dir = run(config, tmp_path)
    assert load(run_dir / "config.json") == config
    versions = json.loads((run_dir / "versions.json").read_text())
    assert versions["slipstream"] == slipstream.__version__
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"gymnasium", "mujoco", "python", "platform"} <= set(versions)
    assert (run_dir / "tb").is_dir() == config.tensorboard

    checkpoints = run_dir / "checkpoints"
    assert (checkpoints / "last").is_symlink() and (checkpoints / "best").is_symlink()
    last = resolve(run_dir)
    assert last.name == "240"
    assert sorted(p.relative_to(last).as_posix() for p in last.rglob("*") if p.is_file()) == [
        "manifest.json",
        "policy/config.json",
        "policy/model.safetensors",
        "training_state/state.json",
        "training_state/tensors.safetensors",
    ]
    kept = [p for p in checkpoints.iterdir() if p.name.isdecimal()]
    assert len(kept) <= config.keep_checkpoints + 1

    (switch,) = events(run_dir, "switch")
    assert (switch["step"], switch["stage"]) == (120, "accelerate")
    assert "50%" in switch["reason"]
    stages = [line["stage"] for line in lines(run_dir)]
    assert stages == sorted(stages)  # "accelerate", then "online"
    steps = [line["step"] for line in lines(run_dir)]
    assert steps == sorted(steps) and steps[-1] == 240
    assert lines(run_dir)[-1]["event"] == "end"
    for line in lines(run_dir):
        assert "event" in line or {"num_updates", "eval_steps", "wall_seconds"} <= set(line)


def test_the_metrics_are_those_that_are_documented(tmp_path):
    run_dir = run(tiny(), tmp_path)
    seen = {key for line in lines(run_dir) for key in line}
    assert {
        "rollout/episode_return",
        "rollout/episode_length",
        "eval/random/return",
        "eval/accelerator/returns",
        "eval/transformer/return_std",
        "eval/transformer/length",
        "train/critic_loss",
        "train/actor_loss",
        "train/q",
        "train/target_q",
        "train/alpha",
        "train/entropy",
        "train/action_saturation",
        "clone/loss",
        "clone/own_state_error",
        "time/steps_per_second",
        "time/act_seconds",
        "time/learn_seconds",
        "time/clone_seconds",
        "time/eval_seconds",
    } <= seen
    # The accelerator is looked at in stage 1 alone, the transformer in both, once it was taught; at
    # 120 and 240 too.
    assert [line["step"] for line in with_key(run_dir, "eval/accelerator/return")] == [0, 60, 120]
    assert [line["step"] for line in with_key(run_dir, "eval/transformer/return")] == [
        60,
        120,
        180,
        240,
    ]
    assert [line["step"] for line in with_key(run_dir, "eval/random/return")] == [0]
    assert len(with_key(run_dir, "eval/random/returns")[0]["eval/random/returns"]) == 2


@pytest.fixture
def counted(monkeypatch):
    """Counts what the environments of training really did; evaluation apart."""
    counts = {"train": 0, "eval": 0}
    mode = ["train"]
    step = VecEnv.step

    def counting_step(env, action):
        result = step(env, action)
        counts[mode[0]] += int(result.acted.sum())
        return result

    def counting_evaluate(*args, **kwargs):
        mode[0] = "eval"
        try:
            return evaluate(*args, **kwargs)
        finally:
            mode[0] = "train"

    monkeypatch.setattr(VecEnv, "step", counting_step)
    monkeypatch.setattr("slipstream.judging.referee.evaluate", counting_evaluate)
    return counts


CASES = {
    "relabel": {},
    "own episodes": {"cloning": replace(TINY.cloning, own_episodes=1)},
    "episodes": {
        "cloning": replace(TINY.cloning, source="episodes", episodes=1, episodes_every=50)
    },
    "two envs": {"env": EnvConfig(num_envs=2, max_episode_steps=20)},
    "scratch": {"stages": ("online",), "cloning": replace(TINY.cloning, enabled=False)},
    "accelerator": {"stages": ("accelerate",), "cloning": replace(TINY.cloning, enabled=False)},
    "accelerator with clone": {"stages": ("accelerate",)},
}


@pytest.mark.parametrize("case", CASES)
def test_every_env_step_is_counted(case, counted, tmp_path):
    run_dir = run(tiny(algorithm="td3", **CASES[case]), tmp_path)
    final = lines(run_dir)[-1]
    assert final["event"] == "end" and final["step"] >= 240
    assert final["step"] == counted["train"]
    assert lines(run_dir)[-2]["eval_steps"] == counted["eval"]

    own = sum(
        line["rollout/episode_length"] for line in with_key(run_dir, "rollout/episode_length")
    )
    extra = final["step"] - own
    unfinished = 20 * (2 if case == "two envs" else 1) * 2  # at the switch and at the end
    if case == "own episodes":
        assert extra >= 20  # one episode before the switch
    elif case == "episodes":
        assert extra >= 2 * 20
    else:
        assert 0 <= extra <= unfinished


def test_stage_1_ends_in_time_even_if_no_episode_to_clone_from_came_due(tmp_path):
    cloning = replace(TINY.cloning, source="episodes", episodes_every=10_000)
    (switch,) = events(run(tiny(algorithm="td3", cloning=cloning), tmp_path), "switch")
    assert "50% of all steps" in switch["reason"]


def test_no_step_is_looked_at_twice(tmp_path):
    """Three environments pass the last multiple of the period in one stride."""
    env = EnvConfig(num_envs=3, max_episode_steps=20)
    fields = {"eval": replace(TINY.eval, every=50), "env": env, **CASES["scratch"]}
    run_dir = run(tiny(algorithm="td3", total_steps=100, **fields), tmp_path)
    looks = [line["step"] for line in with_key(run_dir, "eval/transformer/return")]
    assert looks == [0, 51, 102]


EXTRA = {
    # From half of all steps on: at 80 there is room for one episode of 20 steps.
    "own episodes": (replace(TINY.cloning, own_episodes=3), 80),
    # At 40 for three.
    "episodes": (replace(TINY.cloning, source="episodes", episodes=4, episodes_every=40), 40),
}


@pytest.mark.parametrize("case", EXTRA)
def test_extra_episodes_stay_within_the_budget(case, tmp_path):
    cloning, expected = EXTRA[case]
    one_stage = tiny(algorithm="td3", total_steps=100, stages=("accelerate",), cloning=cloning)
    run_dir = run(replace(one_stage, eval=replace(TINY.eval, every=40)), tmp_path)
    own = [line["rollout/episode_length"] for line in with_key(run_dir, "rollout/episode_length")]
    assert (sum(own), lines(run_dir)[-1]["step"]) == (expected, 100)


def test_updates_keep_their_ratio_to_steps(tmp_path):
    run_dir = run(tiny(algorithm="td3", utd_ratio=0.5), tmp_path)
    state = load_tree(resolve(run_dir) / "training_state")
    # None while actions are random; one more or less for the step at which learning starts.
    assert state["num_updates"] == pytest.approx((240 - 30) * 0.5, abs=1)


def test_a_transformer_from_scratch_knows_no_accelerator(tmp_path):
    run_dir = run(tiny(algorithm="td3", **CASES["scratch"]), tmp_path)
    seen = {key for line in lines(run_dir) for key in line}
    assert "eval/transformer/return" in seen
    assert not any("accelerator" in key or key.startswith("clone/") for key in seen)
    assert {line["stage"] for line in lines(run_dir)} == {"online"}
    assert not events(run_dir, "switch")


def test_an_accelerator_alone_knows_no_transformer(tmp_path):
    run_dir = run(tiny(algorithm="td3", **CASES["accelerator"]), tmp_path)
    seen = {key for line in lines(run_dir) for key in line}
    assert "eval/accelerator/return" in seen
    assert not any("transformer" in key or key.startswith("clone/") for key in seen)
    described = json.loads((resolve(run_dir) / "policy" / "config.json").read_text())
    assert (described["actor"], described["kind"]) == ("accelerator", "mlp")


def test_the_first_actions_are_random_in_the_first_stage_alone(tmp_path, monkeypatch):
    asked = []
    step = slipstream.stages.interact.Interaction.step  # pyright: ignore[reportAttributeAccessIssue]

    def spy(interaction, actor, explore, random=False):
        asked.append(random)
        return step(interaction, actor, explore, random)

    monkeypatch.setattr("slipstream.stages.interact.Interaction.step", spy)
    run(tiny(algorithm="td3"), tmp_path)
    assert asked[:30] == [True] * 30 and not any(asked[30:])


def test_normalized_observations_are_saved_with_the_policy(tmp_path):
    run_dir = run(
        tiny(algorithm="td3", env=EnvConfig(normalize_obs=True, max_episode_steps=20)), tmp_path
    )
    state = load_tree(resolve(run_dir) / "training_state")
    networks = state["team"]["networks"]
    mean = networks["transformer"]["inputs.normalizers.state.mean"]
    assert mean.abs().max() > 0.01
    for module in networks.values():
        assert torch.equal(module["inputs.normalizers.state.mean"], mean)


@pytest.mark.parametrize("total_steps", [300, 240])
def test_a_fall_is_rolled_back_to_the_best_snapshot(tmp_path, monkeypatch, total_steps):
    """Stage 2 is made to look ruined at two evaluations: weights and optimizers go back.

    If the second is the run's last, what it went back to is evaluated once more.
    """
    switch_at = 120
    look = Referee._evaluate

    def ruined(referee, name, team, log, **kwargs):
        result = look(referee, name, team, log, **kwargs)
        score = {"random": -1000.0, "accelerator": -100.0, "transformer": -100.0}[name]
        online = len(referee.history) > 1 and referee.history[-1].step >= 120
        if name == "transformer" and online:
            score = -990.0
        return replace(result, returns=(score, score + 1))

    monkeypatch.setattr(Referee, "_evaluate", ruined)
    restored = []
    restore = slipstream.stages.team.Team.restore  # pyright: ignore[reportAttributeAccessIssue]

    def spy(team, snapshot, stage):
        again = restore(team, snapshot, stage)
        restored.append(copy.deepcopy({n: m.state_dict() for n, m in team.modules().items()}))
        return again

    monkeypatch.setattr("slipstream.stages.team.Team.restore", spy)
    run_dir = run(
        tiny(
            algorithm="sac",
            total_steps=total_steps,
            switch=SwitchConfig(rule="at_step", latest=switch_at / total_steps),
        ),
        tmp_path,
    )
    (rollback,) = events(run_dir, "rollback")
    assert rollback["step"] == 240 and rollback["stage"] == "online"
    assert "50%" in rollback["reason"] and "-99.5" in rollback["reason"]
    assert len(restored) == 1
    best = resolve(run_dir, "best")
    assert best.name == "120"  # the clone as it was handed over
    for key, value in load_file(best / "policy" / "model.safetensors").items():
        assert torch.equal(restored[0]["transformer"][key], value)
    state = load_tree(resolve(run_dir) / "training_state")
    assert state["stage_state"]["learner"]["num_updates"] == total_steps - 240  # fresh optimizers
    looks = [line["step"] for line in lines(run_dir) if "eval/transformer/return" in line]
    assert looks.count(total_steps) == (2 if total_steps == 240 else 1)
    assert state["best"]["alpha"] > 0  # a resumed run goes back to it too
    assert lines(run_dir)[-1]["event"] == "end"


def test_no_guard_no_rollback(tmp_path, monkeypatch):
    look = Referee._evaluate
    monkeypatch.setattr(
        Referee,
        "_evaluate",
        lambda referee, name, *args, **kwargs: replace(
            look(referee, name, *args, **kwargs),
            returns=(-1000.0 if referee.history and name == "transformer" else 0.0,) * 2,
        ),
    )
    config = tiny(algorithm="td3", online=OnlineConfig(replay_capacity=150, guard_fraction=0.0))
    assert not events(run(config, tmp_path), "rollback")


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    weights = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        run_dir = run(tiny(algorithm="sac", total_steps=80, seed=seed), tmp_path, name)
        weights.append((resolve(run_dir) / "policy" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path):
    run_dir = run(tiny(algorithm="td3", total_steps=40), tmp_path)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(SlipstreamError, match="already holds a run"):
        run(tiny(), tmp_path)
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_runs_have_folders_of_their_own_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny(algorithm="td3", total_steps=40, seed=7, preset="paper/mdp-td3")
    one, two = (train(config, show_progress=False) for _ in range(2))
    assert one != two
    assert one.parent.as_posix() == "runs/Pendulum-v1/paper_mdp-td3"
    assert one.name.startswith("seed7-")


def test_a_description_builds_everything_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "\n".join(describe(tiny()))
    assert "Pendulum-v1" in text and "accelerator:" in text and "transformer:" in text
    assert "replay of stage online: 150 rows" in text
    assert list(tmp_path.iterdir()) == []


def test_a_description_makes_a_folder_for_a_replay_on_the_disk_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, mkdir = [], os.mkdir

    def spy(path, *args, **kwargs):
        made.append(Path(path))
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr("os.mkdir", spy)
    describe(tiny())
    assert made == []
    assert "on the disk" in "\n".join(describe(tiny(replay_device="disk")))
    assert made and list(tmp_path.iterdir()) == []


def test_rollouts_are_counted_by_what_they_return(counted):
    from slipstream.envs.making import make_env
    from slipstream.networks import NetworksConfig
    from slipstream.replay import ReplayBuffer

    env = make_env("Pendulum-v1", env_kwargs={"max_episode_steps": 7})
    actor = actor_of("mlp", NetworksConfig(), spec=env.spec)
    num_steps, returns = rollout(env, actor, ReplayBuffer(env.spec, 100), 3, seed=0)
    assert (num_steps, len(returns)) == (21, 3) and counted["train"] == 21
