"""The examples of the pages on bringing one's own, by the commands that stand there."""

import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from scripts.docs_blocks import blocks

from slipstream.cli import main
from slipstream.config import load
from tests.tiny_runs import events, lines

ROOT = Path(__file__).parent.parent
PAGE = "".join(
    (ROOT / "docs" / f"bring-your-own-{name}.md").read_text()
    for name in ("accelerator", "environment")
)
EXAMPLES = ROOT / "examples" / "bring_your_own"
SMALL = {
    "total-steps": 200,
    "learning-starts": 30,
    "batch-size": 16,
    "eval.every": 100,
    "eval.episodes": 2,
    "cloning.burst": 5,
    "data.clone-updates": 5,
    "data.critic-updates": 5,
    "checkpoint-every": 100,
    "log-every": 100,
    "matmul": "default",
}


def commands():
    """What the pages tell to type, but for what installs."""
    shell = [block for block in blocks(PAGE) if block.language == "sh"]
    lines = [line for block in shell for line in block.commands]
    return [line for line in lines if not line.startswith("pip ")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield tmp_path
    for name in ("swing_up", "catch"):
        sys.modules.pop(name, None)


def run(command, monkeypatch):
    """One line of the page, with little to train."""
    program, *arguments = shlex.split(command)
    if program == "python":
        script, *rest = arguments
        monkeypatch.setattr(
            sys, "argv", [script, *({"5000": "120", "30": "2"}[word] for word in rest)]
        )
        monkeypatch.syspath_prepend(Path.cwd())
        runpy.run_path(script, run_name="__main__")
        return
    assert program == "slipstream"
    train = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    train += ["--no-tensorboard", "--quiet"]
    small = {"train": train, "resume": ["--quiet"], "evaluate": ["--episodes", "2"]}
    assert main([*arguments, *small[arguments[0]]]) == 0


def chosen(*words):
    return [command for command in commands() if any(word in command for word in words)]


def test_every_command_of_the_page_is_run_below():
    tested = chosen(
        "sb3", "train_sac", "from_function", "record", "dataset", "catch", "caught", "heavy"
    )
    assert tested == commands() and len(tested) == 13


def test_a_model_of_stable_baselines3(folder, monkeypatch):
    pytest.importorskip("stable_baselines3")
    for command in chosen("sb3", "train_sac"):
        run(command, monkeypatch)
    (told,) = events(Path("from_sb3"), "accelerator")
    assert told["reason"] == (
        "the SAC model pendulum_sac.zip, normalized by vecnormalize.pkl: stays as it is, with "
        "its critics"
    )
    assert told["reason"] in " ".join(PAGE.split())


def test_a_function_and_what_follows_it(folder, monkeypatch):
    for command in chosen("from_function"):
        run(command, monkeypatch)
    (told,) = events(Path("from_replay"), "accelerator")
    assert told["reason"].startswith("the replay of from_function, 200 steps in ")
    (told,) = events(Path("further"), "accelerator")
    assert told["reason"] == "the policy of from_function: stays as it is, with its critics"
    # The function of the example swings up: about -140, where random actions get -1200.
    key = "eval/accelerator/return"
    assert min(line[key] for line in lines(Path("from_function")) if key in line) > -400


def test_a_dataset(folder, monkeypatch):
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "datasets"))
    for command in chosen("record", "dataset"):
        run(command, monkeypatch)
    (told,) = events(Path("from_dataset"), "data")
    assert told["reason"].startswith("400 rows in 2 episodes")


def test_an_environment_of_ones_own(folder, monkeypatch, capsys):
    for command in chosen("catch", "caught", "heavy"):
        run(command, monkeypatch)
    out = capsys.readouterr().out
    assert "catch:make: return" in out and "success" in out
    config = load(Path("heavy/config.json"))
    assert config.env_id == "catch:make" and config.env.kwargs == {"mass": 2.0}
    assert config.env.max_episode_steps == 50
