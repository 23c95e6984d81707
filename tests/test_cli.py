"""What a user types, and what a user who mistypes is told."""

import json
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import yaml

from slipstream.cli import main
from slipstream.config import load, to_yaml
from slipstream.presets import PRESETS
from tests.tiny_runs import TINY, lines, tiny


class Broken(gym.Env):
    """Rewards or shows NaN at its fifth step, or shows what is not supported."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.action_space = gym.spaces.Box(-1, 1, (1,))
        self.observation_space = gym.spaces.Box(-1, 1, (2,))
        if fault == "dict":
            self.observation_space = gym.spaces.Dict(a=gym.spaces.Discrete(3))
        if fault == "tuple action":
            self.action_space = gym.spaces.Tuple([gym.spaces.Box(-1, 1, (1,))])
        self.t = 0

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        obs, reward = np.zeros(2, np.float32), 0.0
        if self.t == 5 and self.fault == "nan obs":
            obs[1] = np.nan
        if self.t == 5 and self.fault == "nan reward":
            reward = float("nan")
        return obs, reward, False, self.t == 10, {}


FAULTS = ("nan obs", "nan reward", "dict", "tuple action")


@pytest.fixture(scope="module", autouse=True)
def broken_environments():
    for fault in FAULTS:
        name = f"Broken-{fault.replace(' ', '-')}-v0"
        gym.register(name, f"{__name__}:Broken", kwargs={"fault": fault})
    yield
    for fault in FAULTS:
        gym.registry.pop(f"Broken-{fault.replace(' ', '-')}-v0")


@pytest.fixture
def tiny_yaml(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(to_yaml(TINY))
    return path


def one_line_error(capsys, *arguments):
    """Exit status 2, one line on standard error, nothing on standard output."""
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("slipstream: ") and err.endswith("\n") and err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["NoSuchEnv-v0"], ["NoSuchEnv-v0"]),
        (["HalfCheeta-v5"], ["HalfCheeta-v5", "did you mean HalfCheetah-v5"]),
        (["CartPole-v1"], ["CartPole-v1", "Discrete(2)", "Pendulum-v1"]),
        (["FrozenLake-v1"], ["FrozenLake-v1", "only continuous actions", "Pendulum-v1"]),
        (["Broken-dict-v0"], ["Broken-dict-v0", "Dict"]),
        (["Broken-tuple-action-v0"], ["Broken-tuple-action-v0", "Tuple"]),
        (["Broken-nan-reward-v0", "--config", "TINY"], ["reward nan", "step 5"]),
        (["Broken-nan-obs-v0", "--config", "TINY"], ["nan", "component 1", "step 5"]),
        (["Pendulum-v1", "--batch-size", "-1"], ["batch_size is -1"]),
        (["Pendulum-v1", "--total-steps", "-100"], ["total_steps is -100"]),
        (["Pendulum-v1", "--seed", "-1"], ["seed is -1"]),
        (["Pendulum-v1", "--env.num-envs", "0"], ["env.num_envs is 0"]),
        (["Pendulum-v1", "--env.max-episode-steps", "-3"], ["env.max_episode_steps is -3"]),
        (["Pendulum-v1", "--accelerate.replay-capacity", "-9"], ["replay_capacity is -9"]),
        (["Pendulum-v1", "--online.replay-capacity", "-9"], ["replay_capacity is -9"]),
        (["Pendulum-v1", "--cloning.burst", "-1"], ["cloning.burst is -1"]),
        (["Pendulum-v1", "--eval.episodes", "0"], ["eval.episodes is 0"]),
        (["Pendulum-v1", "--networks.mlp.hidden", "64", "-64"], ["mlp.hidden is (64, -64)"]),
        (["Pendulum-v1", "--networks.transformer.d-model", "-8"], ["d_model is -8"]),
        (["Pendulum-v1", "--networks.transformer.n-heads", "3"], ["n_heads 3", "d_model 64"]),
        (
            ["Pendulum-v1", "--networks.transformer.context-length", "30000"],
            ["context_length 30000", "20000 rows", "30001"],
        ),
        (["Pendulum-v1", "--preset", "fast"], ["'fast'", "default", "paper/mdp-td3"]),
        (["Pendulum-v1", "--algorithm", "ppo"], ["'ppo'", "td3", "sac"]),
        (["Pendulum-v1", "--device", "quantum"], ["'quantum'"]),
        (["Pendulum-v1", "--config", "nonesuch.yaml"], ["nonesuch.yaml", "No such file"]),
        (["Pendulum-v1", "--config", "FIELD"], ["FIELD.yaml", "nonesuch"]),
        (["Pendulum-v1", "--config", "TYPE"], ["TYPE.yaml", "'many'", "total_steps"]),
        (["Pendulum-v1", "--config", "TEXT"], ["TEXT.yaml", "not YAML"]),
    ],
)
def test_bad_input_to_train_is_told_in_one_line(arguments, said, tmp_path, tiny_yaml, capsys):
    written = {"FIELD": "nonesuch: 1", "TYPE": "total_steps: many", "TEXT": "a: [1"}
    for name, text in written.items():
        (tmp_path / f"{name}.yaml").write_text(f"env_id: x\n{text}\n")
    files = {name: tmp_path / f"{name}.yaml" for name in written} | {"TINY": tiny_yaml}
    arguments = [files.get(argument, argument) for argument in arguments]
    run_dir = tmp_path / "run"
    error = one_line_error(capsys, "train", *arguments, "--run-dir", run_dir, "--quiet")
    for words in said:
        assert words in error
    if "nan" not in str(arguments[0]):  # which only shows once the run is under way
        assert not run_dir.exists()


def test_what_tyro_refuses_exits_with_2_too(capsys):
    for arguments in (["--nonesuch", "1"], ["--batch-size", "many"], ["--switch.rule", "never"]):
        with pytest.raises(SystemExit) as error:
            main(["train", "Pendulum-v1", *arguments])
        assert error.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(to_yaml(tiny(algorithm="td3")))
    path = folder / "run"
    arguments = ["--config", str(folder / "tiny.yaml"), "--run-dir", str(path), "--quiet"]
    assert main(["train", "Pendulum-v1", *arguments, "--seed", "3"]) == 0
    return path


def test_train_runs_what_it_is_told(run_dir):
    config = load(run_dir / "config.json")
    assert config == tiny(algorithm="td3", seed=3)
    assert lines(run_dir)[-1]["event"] == "end"


def test_a_run_is_not_overwritten(run_dir, capsys):
    error = one_line_error(capsys, "train", "Pendulum-v1", "--run-dir", run_dir, "--quiet")
    assert f"slipstream resume {run_dir}" in error


def test_evaluate_a_run_and_one_of_its_checkpoints(run_dir, capsys):
    assert main(["evaluate", str(run_dir), "--episodes", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["returns"]) == 3 and found["lengths"] == [20] * 3  # the run's time limit
    assert (
        main(["evaluate", str(run_dir / "checkpoints" / "last"), "--episodes", "3", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == found
    assert main(["evaluate", str(run_dir), "--episodes", "3", "--seed", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) != found
    assert main(["evaluate", str(run_dir), "--checkpoint", "best", "--episodes", "1"]) == 0
    assert "Pendulum-v1: return -" in capsys.readouterr().out


def test_evaluate_sees_the_last_evaluation_of_the_run_again(run_dir, capsys):
    """Same policy, same seeds: the very returns that the run logged."""
    key = "eval/transformer/returns"
    logged = [line[key] for line in lines(run_dir) if key in line][-1]
    arguments = ["--episodes", str(len(logged)), "--seed", "1000000", "--json"]
    assert main(["evaluate", str(run_dir), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == pytest.approx(logged, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonesuch"], "does not exist"),
        (["several/seed0/none"], "manifest.json"),
        (["several"], "several is no run but holds 2, such as several/seed0"),
        ([".", "--episodes", "0"], "--episodes is 0"),
        ([".", "--seed", "-1"], "--seed is -1"),
    ],
)
def test_bad_input_to_evaluate_is_told_in_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        (tmp_path / f"several/seed{seed}/checkpoints").mkdir(parents=True)
    (tmp_path / "several/seed0/none").mkdir()
    assert said in one_line_error(capsys, "evaluate", *arguments)


def test_report_of_no_run_is_told_in_one_line(tmp_path, capsys):
    assert str(tmp_path) in one_line_error(capsys, "report", tmp_path)
    assert "no run" in one_line_error(capsys, "report")


@pytest.mark.parametrize("name", PRESETS)
def test_print_config_comes_back_through_config(name, tmp_path, capsys):
    changes = ["--seed", "5", "--algorithms.td3.gamma", "0.9", "--networks.mlp.hidden", "32", "16"]
    assert main(["train", "Hopper-v5", "--preset", name, *changes, "--print-config"]) == 0
    first = capsys.readouterr().out
    values = yaml.safe_load(first)
    assert (values["preset"], values["seed"], values["env_id"]) == (name, 5, "Hopper-v5")
    assert values["networks"]["mlp"]["hidden"] == [32, 16]
    path = tmp_path / "printed.yaml"
    path.write_text(first)
    assert main(["train", "Hopper-v5", "--config", str(path), "--print-config"]) == 0
    assert capsys.readouterr().out == first


def test_a_file_need_not_name_the_environment(tmp_path, capsys):
    (tmp_path / "short.yaml").write_text("total_steps: 5000\n")
    arguments = ["--config", str(tmp_path / "short.yaml"), "--print-config"]
    assert main(["train", "Hopper-v5", *arguments]) == 0
    assert "env_id: Hopper-v5" in capsys.readouterr().out


def test_options_change_what_a_file_says(tiny_yaml, capsys):
    arguments = ["--config", str(tiny_yaml), "--batch-size", "99", "--print-config"]
    assert main(["train", "Hopper-v5", *arguments]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert (values["env_id"], values["batch_size"], values["total_steps"]) == ("Hopper-v5", 99, 240)


def test_presets_are_listed(capsys):
    assert main(["presets"]) == 0
    listed, choices = capsys.readouterr().out.split("\n\n")
    assert [line.split()[0] for line in listed.splitlines()] == list(PRESETS)
    assert all(len(line.split()) > 3 for line in listed.splitlines())
    assert "--networks.transformer.gate gru" in choices


def test_a_dry_run_builds_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "Pendulum-v1", "--dry-run", "--run-dir", "run"]) == 0
    out = capsys.readouterr().out
    assert "transformer:" in out and "parameters" in out and "MiB" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "--help"], ["resume", "--help"]])
def test_help_helps(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    out, err = capsys.readouterr()
    assert error.value.code in (0, 2) and "Traceback" not in err
    if arguments:
        assert "slipstream" in out
        assert error.value.code == 0
    if arguments == ["--help"]:
        assert "- resume: Go on with a run from its last checkpoint" in out


def test_help_of_train_takes_a_preset_into_account(capsys):
    with pytest.raises(SystemExit):
        main(["train", "Pendulum-v1", "--preset", "paper/mdp-td3", "--help"])
    assert "1000000" in capsys.readouterr().out.replace("_", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--preset", "pendulum", "Pendulum-v1", "--dry-run"],
        ["train", "--print-config", "Pendulum-v1"],
        ["branch", "--total-steps", "100", "runs/one"],
    ],
)
def test_options_before_what_they_change_are_refused(arguments, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"'{arguments[1]}' stands before" in said
    assert f"as in slipstream {arguments[0]} " in said


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as error:
        main(["fly"])
    assert error.value.code == 2
    assert "train" in capsys.readouterr().err


def test_importing_slipstream_is_light():
    """And so is the report, which reads files alone."""
    code = (
        "import sys, slipstream; light = set(sys.modules); import slipstream.report.html; "
        "heavy = {'torch', 'gymnasium', 'mujoco', 'numpy', 'matplotlib', 'tyro'} & light; "
        "assert not heavy, heavy; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
