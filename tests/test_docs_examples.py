"""What the pages on deploying and on the Python API tell to type, typed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts.docs_blocks import blocks

from slipstream.checkpoint import link, save_checkpoint
from slipstream.cli import main
from tests.policies.live_policies import live

DOCS = Path(__file__).parents[1] / "docs"


def run_page(name: str) -> dict[str, Any]:
    """Run the blocks of a page in order, the Python ones in one namespace, which is returned."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page(name)):
        if block.language == "python":
            exec(compile(block.code, name, "exec"), space)
        else:
            for command in block.commands:
                run_command(shlex.split(command))
    return space


def run_command(words: list[str]) -> None:
    if words[1] in ("train", "distil"):
        return  # what is trained lies there already
    if words[0] == ".venv/bin/slipstream":
        assert main(words[1:]) == 0
    else:
        assert words[0] == "python"
        subprocess.run([sys.executable, *words[1:]], check=True)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("run_policy", None)


def test_the_page_on_deploying(tmp_path, capfd):
    policy = live("transformer")
    run_dir = tmp_path / "runs" / "pendulum"
    save_checkpoint(run_dir, 1, (policy.description, dict(policy.actor.state_dict())), {})
    link(run_dir, "best", 1)
    link(run_dir, "last", 1)
    space = run_page("deploy.md")
    printed = re.search(r"\[(.*)\] within \[-2.0\] \[2.0\]", capfd.readouterr().out)
    assert printed is not None
    # The same action from the runner, from torch.export and from the policy itself.
    action, _ = policy.step([1.0, 0.0, 0.5], policy.initial_carry())
    assert float(printed[1]) == pytest.approx(action.item(), abs=1e-5)
    assert space["action"].item() == pytest.approx(action.item(), abs=1e-5)


def test_the_page_on_the_python_api(capfd):
    space = run_page("python-api.md")
    out = capfd.readouterr().out
    assert "runs/Pendulum-v1/pendulum/seed1-" in out
    said = re.search(
        r"^# (the observation 'state' has.*?)\n```", page("python-api.md"), re.S | re.M
    )
    assert said is not None
    assert re.sub(r"\s*\n# ", " ", said[1]) in out
    assert space["evaluation"].lengths == (200,) * 5


def page(name: str) -> str:
    return (DOCS / name).read_text()
