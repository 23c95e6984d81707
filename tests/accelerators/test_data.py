"""Data as accelerator: Minari datasets and replays of this package."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from slipstream.accelerators import bring, bring_again, describe_brought
from slipstream.cli import main
from slipstream.config import to_dict, to_yaml
from slipstream.envs.observation import ObservationConfig
from slipstream.errors import Interrupted, SlipstreamError
from slipstream.policies.policy import load_policy
from slipstream.replay.episodes import read_replay
from slipstream.report.runs import load_run
from slipstream.report.summary import summarise
from slipstream.rundir import describe_run
from slipstream.stages.accelerate import AccelerateConfig
from slipstream.stages.rehearsal import DataConfig
from slipstream.training import train
from slipstream.training.trainer import Trainer
from tests.accelerators.datasets import act, buffers, write_dataset
from tests.accelerators.models import our_actions, pendulum, run_config, spec_of
from tests.tiny_runs import events, lines, timeless, tiny

FEW = DataConfig(clone_updates=7, critic_updates=5)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    return write_dataset(tmp_path / "datasets", monkeypatch)


@pytest.mark.parametrize("by_folder", [False, True])
def test_a_dataset_becomes_whole_episodes(dataset, by_folder):
    place = dataset if by_folder else "pendulum/act-v0"
    brought = bring(run_config(f"minari:{place}"), pendulum())
    assert brought is not None and brought.episodes is not None
    assert not brought.learns and brought.critic is None and brought.data_rows == 6 * 21
    told = describe_brought(brought)
    assert told.startswith(f"the Minari dataset {place}, 120 steps in 6 episodes: cloned first")
    columns = brought.episodes.columns
    for i, episode in enumerate(buffers()):
        rows = slice(21 * i, 21 * i + 21)
        np.testing.assert_array_equal(columns["obs.state"][rows], episode.observations)
        action = columns["action"][rows][:-1]  # in [-1, 1] where Pendulum has [-2, 2]
        np.testing.assert_allclose(2 * action, episode.actions, atol=1e-6)
        np.testing.assert_allclose(columns["reward"][rows][:-1], episode.rewards, rtol=1e-6)
        assert columns["step"][rows].tolist() == list(range(21))
        assert not columns["terminated"][rows].any()  # a time limit is no end


def test_what_changed_need_not_be_recorded(dataset, tmp_path):
    env = replace(tiny().env, differences=True)
    config = run_config(f"minari:{dataset}", env=env, data=FEW)
    brought = bring(config, spec_of(config))
    assert brought is not None and brought.episodes is not None
    columns = brought.episodes.columns
    change = columns["obs.state.difference"].reshape(6, 21, 3)
    assert not change[:, 0].any() and change[:, 1:].any()
    np.testing.assert_array_equal(
        change[:, 1:], np.diff(columns["obs.state"].reshape(6, 21, 3), axis=1)
    )
    train(config, tmp_path / "run", show_progress=False)


def test_a_terminal_state_stays_one(tmp_path, monkeypatch):
    write_dataset(tmp_path, monkeypatch, buffer=buffers(2, 5, terminate=True))
    brought = bring(run_config("minari:pendulum/act-v0"), pendulum())
    assert brought is not None and brought.episodes is not None
    assert brought.episodes.columns["terminated"].tolist() == 2 * [0, 0, 0, 0, 1, 0]


def test_the_newest_rows_are_taken_if_there_are_too_many(dataset):
    config = run_config("minari:pendulum/act-v0", data=DataConfig(rows=50))
    brought = bring(config, pendulum())
    assert brought is not None and brought.episodes is not None
    newest = np.concatenate([each.observations for each in buffers()[-2:]])
    np.testing.assert_array_equal(brought.episodes.columns["obs.state"], newest)
    config = run_config("minari:pendulum/act-v0", data=DataConfig(rows=20))
    with pytest.raises(SlipstreamError, match=r"no episode of at most data\.rows 20"):
        bring(config, pendulum())


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
@pytest.mark.parametrize("num_envs", [1, 4])
def test_the_run_holds_the_data_and_learns_from_it_first(dataset, tmp_path, algorithm, num_envs):
    env = replace(tiny().env, num_envs=num_envs, normalize_obs=True)
    data = DataConfig(clone_updates=400, critic_updates=30)
    config = run_config("minari:pendulum/act-v0", algorithm, env=env, data=data)
    trainer = Trainer(config, tmp_path / "run", show_progress=False)
    team, stage = trainer.state.team, trainer.state.stage
    assert stage.frozen and stage.replay.num_transitions(3) == 120
    assert team.normalizers["state"].count == 126
    found = read_replay(stage.replay.state_dict())
    expected = sorted(np.round(sum(each.rewards), 2) for each in buffers())
    assert sorted(np.round(found.returns, 2)) == pytest.approx(expected, abs=0.02)

    rehearsal, critic = stage.rehearsal, team.critic
    assert rehearsal is not None
    before = [p.clone() for p in critic.parameters()]
    metrics = rehearsal.run(lambda: False)
    assert rehearsal.finished and stage.frozen
    assert (metrics["rows"], metrics["episodes"], metrics["episodes_cloned"]) == (120, 6, 3)
    assert metrics["episode_return_cloned"] > metrics["episode_return"]
    assert all(not torch.equal(p, q) for p, q in zip(critic.parameters(), before, strict=True))
    # What it imitates is the recorded policy, noise left out.
    obs = np.concatenate([each.observations for each in buffers()[:3]]).astype(np.float32)
    tensor = {"state": torch.as_tensor(obs[:, None])}
    with torch.no_grad():
        own = team.actors["accelerator"](tensor, torch.ones(len(obs), 1, dtype=torch.bool)).mode
    assert np.square(own[:, 0].numpy() - act(obs) / 2).mean() < 0.05
    trainer.state.close()


def test_the_best_episodes_are_cloned(tmp_path, monkeypatch):
    """Two policies, opposed to each other; the better of them is learnt."""
    recorded = buffers(8)
    for episode in recorded[::2]:
        episode.rewards[:] = [0.0] * 20
        episode.actions[:] = [-action for action in episode.actions]
    write_dataset(tmp_path, monkeypatch, buffer=recorded)
    data = DataConfig(clone_updates=300, critic_updates=0)
    config = run_config("minari:pendulum/act-v0", "td3", data=data)
    trainer = Trainer(config, tmp_path / "run", show_progress=False)
    assert trainer.state.stage.rehearsal is not None
    trainer.state.stage.rehearsal.run(lambda: False)
    obs = np.concatenate([each.observations for each in recorded]).astype(np.float32)
    actor = trainer.state.team.actors["accelerator"]
    correlation = np.corrcoef(our_actions(actor, obs).ravel(), -act(obs).ravel())[0, 1]
    assert correlation > 0.8
    trainer.state.close()


@pytest.mark.parametrize("source", ["minari", "replay"])
def test_a_whole_run_begins_with_it_and_is_resumed_without_it(
    source, dataset, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    place = f"minari:{dataset}"
    if source == "replay":
        place = f"replay:{train(tiny(), Path('teacher'), show_progress=False)}"
    config = run_config("mlp", "td3", keep_checkpoints=9, data=FEW)
    Path("tiny.yaml").write_text(to_yaml(config))
    command = ["train", "Pendulum-v1", "--config", "tiny.yaml", "--accelerator", place, "--quiet"]
    assert main([*command, "--run-dir", "run"]) == 0
    whole = timeless(Path("run"))
    assert "cloned first" in events(Path("run"), "accelerator")[0]["reason"]
    (told,) = events(Path("run"), "data")
    rows = 120 if source == "minari" else 140  # stage 2's replay holds 150 rows of the teacher's
    assert told["step"] == 0 and "not among the counted steps" in told["reason"]
    (logged,) = [line for line in lines(Path("run")) if "data/rows" in line]
    assert (logged["step"], logged["data/rows"], logged["num_updates"]) == (0, rows, 5)
    assert lines(Path("run"))[-1]["step"] == 240  # the data's rows are not counted
    assert summarise(load_run(Path("run"))).data_rows == rows
    assert events(Path("run"), "switch") and load_policy("run").spec.env_id == "Pendulum-v1"

    shutil.rmtree(dataset)
    shutil.rmtree("teacher", ignore_errors=True)
    for step in (40, 160):
        assert main(["resume", f"run/checkpoints/{step}", "--quiet"]) == 0
        assert timeless(Path("run")) == whole


def test_an_interrupt_while_it_learns_from_the_data_changes_nothing(dataset, tmp_path):
    config = run_config(f"minari:{dataset}", data=FEW)
    whole = train(config, tmp_path / "whole", show_progress=False)
    trainer = Trainer(config, tmp_path / "cut", show_progress=False)
    describe_run(tmp_path / "cut", to_dict(trainer.state.config))
    assert trainer.state.stage.rehearsal is not None
    for limit in (3, 6):  # among the updates of cloning, then among those of the critics
        original, calls = trainer.state.stage.rehearsal.run, iter(range(limit))

        def run(_, trainer=trainer, original=original, calls=calls):
            def stopped():
                if next(calls, None) is None:
                    trainer.stop()
                return trainer.stopped

            return original(stopped)

        setattr(trainer.state.stage.rehearsal, "run", run)  # noqa: B010 - would not type
        with pytest.raises(Interrupted):
            trainer.run()
        assert not events(tmp_path / "cut", "data")
        trainer = Trainer(
            config, tmp_path / "cut", (tmp_path / "cut/checkpoints/0"), show_progress=False
        )
        assert (
            trainer.state.stage.rehearsal is not None and not trainer.state.stage.rehearsal.finished
        )
    trainer.run()
    assert timeless(tmp_path / "cut") == timeless(whole)


def test_the_resumed_network_is_built_without_the_data(dataset):
    config = run_config(f"minari:{dataset}")
    brought = bring(config, pendulum())
    assert brought is not None
    again = bring_again(json.loads(json.dumps(brought.recipe)), config, pendulum())
    assert again is not None and again.episodes is None and again.data_rows == brought.data_rows
    again.actor.load_state_dict(brought.actor.state_dict())


def short(episode):
    episode.observations.pop()
    return episode


def spoilt(episode):
    episode.rewards[4] = float("nan")
    return episode


class Wide(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,))
    action_space = gym.spaces.Box(-1, 1, (2,))


def refused(config, said):
    with pytest.raises(SlipstreamError, match=said) as error:
        bring(config, spec_of(config))
    assert "\n" not in str(error.value)


def test_data_of_another_environment_is_refused_with_both_values(tmp_path, monkeypatch):
    write_dataset(tmp_path, monkeypatch)
    config = run_config("minari:pendulum/act-v0", env_id="InvertedPendulum-v5")
    refused(
        config,
        r"recorded in Pendulum-v1, but .* is InvertedPendulum-v5; name data",
    )
    config = replace(config, accelerate=AccelerateConfig(check_env=False))
    refused(config, r"\{'state': \(3,\)\} and actions of size 1, .* \{'state': \(4,\)\} and takes")
    masked = replace(tiny().env, observe=ObservationConfig(mask="0-1"))
    refused(run_config("minari:pendulum/act-v0", env=masked), r"\(3,\).* shows \{'state': \(2,\)")

    space = gym.spaces.Box(-1, 1, (1,), np.float32)
    write_dataset(tmp_path, monkeypatch, "other/bounds-v0", action_space=space, buffer=small())
    refused(run_config("minari:other/bounds-v0"), r"in \[-1, 1\], but Pendulum-v1 .* \[-2, 2\]")
    rescaled = run_config("minari:other/bounds-v0", accelerate=AccelerateConfig(check_env=False))
    brought = bring(rescaled, pendulum())
    assert brought is not None and brought.episodes is not None
    expected = np.concatenate([each.actions for each in small()])
    action = brought.episodes.columns["action"].reshape(-1, 6, 1)[:, :-1].reshape(-1, 1)
    np.testing.assert_allclose(action, expected, atol=1e-6)


def small():
    """Episodes with actions in [-1, 1]."""
    recorded = buffers(2, 5)
    for episode in recorded:
        episode.actions[:] = [action / 2 for action in episode.actions]
    return recorded


def discrete():
    recorded = buffers(1, 5)
    recorded[0].actions[:] = [1] * 5
    return recorded


def test_damaged_and_missing_datasets_are_told_in_one_line(tmp_path, monkeypatch):
    folder = write_dataset(tmp_path, monkeypatch, buffer=[*buffers(2), spoilt(buffers(1)[0])])
    refused(run_config(f"minari:{folder}"), r"has nan in reward of row 46; it must be finite")
    refused(run_config("minari:none/such-v0"), r"none/such-v0 is not on this machine: .*minari dow")
    space = gym.spaces.Discrete(2)
    write_dataset(tmp_path, monkeypatch, "other/discrete-v0", action_space=space, buffer=discrete())
    refused(run_config("minari:other/discrete-v0"), r"action space Discrete\(2\), but Pendulum-v1")
    metadata = folder / "data/metadata.json"
    kept = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**kept, "action_space": None} | {}))
    refused(run_config(f"minari:{folder}"), "cannot be read|does not say")
    hostile = dict(kept, env_spec=kept["env_spec"].replace("gymnasium.envs.classic", "no.such"))
    del hostile["action_space"]
    metadata.write_text(json.dumps(hostile))
    refused(run_config(f"minari:{folder}"), "does not say its action_space")
    metadata.write_text("{")
    refused(run_config(f"minari:{folder}"), r"cannot be read \(JSONDecodeError")
    metadata.write_text(json.dumps(kept))
    (folder / "data/main_data.hdf5").write_bytes(b"rubbish")
    refused(run_config(f"minari:{folder}"), r"cannot be read \(")
    monkeypatch.setitem(sys.modules, "minari", None)
    refused(run_config(f"minari:{folder}"), r"pip install 'slipstream-rl\[minari\]'")


def test_replays_that_do_not_fit_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(tiny(), Path("teacher"), show_progress=False)
    masked = replace(tiny().env, observe=ObservationConfig(noise=0.1))
    refused(run_config(f"replay:{run}", env=masked), r"recorded with .*noise=0\.0.* noise=0\.1")
    refused(run_config(f"replay:{run}", env_id="InvertedPendulum-v5"), r"in Pendulum-v1, but")
    refused(run_config("replay:nonesuch"), "nonesuch does not exist")
    shutil.rmtree(Path("teacher/checkpoints/240/training_state"))
    manifest = Path("teacher/checkpoints/240/manifest.json")
    kept = json.loads(manifest.read_text())
    kept["files"] = {k: v for k, v in kept["files"].items() if not k.startswith("training")}
    manifest.write_text(json.dumps(kept))
    refused(run_config(f"replay:{run}"), "240 holds a policy only; name a run's folder")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DataConfig(top=0.0), r"data\.top is 0\.0"),
        (lambda: DataConfig(rows=1), r"data\.rows is 1; it must be at least 2"),
        (lambda: DataConfig(clone_updates=0), r"data\.clone_updates is 0"),
        (lambda: DataConfig(critic_updates=-1), r"data\.critic_updates is -1"),
    ],
)
def test_bad_settings_are_told(make, said):
    with pytest.raises(SlipstreamError, match=said):
        make()
