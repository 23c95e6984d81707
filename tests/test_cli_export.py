"""`slipstream export`, as a user types it."""

import json

import pytest

from slipstream.checkpoint import link, save_checkpoint
from slipstream.cli import main
from slipstream.policies.policy import load_policy
from tests.policies.live_policies import live


@pytest.fixture
def run_dir(tmp_path):
    """A run with two checkpoints of different policies."""
    for step, name in ((10, "gru"), (20, "mlp")):
        policy = live(name)
        save_checkpoint(
            tmp_path / "run", step, (policy.description, dict(policy.actor.state_dict())), {}
        )
    link(tmp_path / "run", "best", 10)
    link(tmp_path / "run", "last", 20)
    (tmp_path / "run" / "config.json").touch()
    return tmp_path / "run"


def export(capsys, *arguments) -> str:
    assert main(["export", *map(str, arguments)]) == 0
    return capsys.readouterr().out.strip()


def test_a_run_is_exported_into_its_folder(run_dir, capsys):
    printed = export(capsys, run_dir)
    assert printed == str(run_dir / "export" / "onnx" / "policy.onnx")
    names = sorted(path.name for path in (run_dir / "export" / "onnx").iterdir())
    assert names == ["policy.json", "policy.onnx", "run_policy.py"]
    assert json.loads((run_dir / "export/onnx/policy.json").read_text())["kind"] == "mlp"


def test_the_checkpoint_is_a_choice(run_dir, capsys, tmp_path):
    out = tmp_path / "out"
    printed = export(capsys, run_dir, "--to", "safetensors", "--checkpoint", "best", "--out", out)
    assert printed == str(out / "model.safetensors")
    assert load_policy(out).description["kind"] == "gru"


@pytest.mark.parametrize("given", ["checkpoints/best", "checkpoints/10", "checkpoints/10/policy"])
def test_a_checkpoint_is_exported_into_the_runs_folder(given, run_dir, capsys):
    export(capsys, run_dir / given, "--to", "safetensors")
    assert load_policy(run_dir / "export" / "safetensors").description["kind"] == "gru"
    assert load_policy(run_dir, "best").description["kind"] == "gru"


def test_mistakes_are_one_line(run_dir, capsys):
    for arguments, said in (
        ([run_dir / "nonesuch"], "does not exist"),
        ([run_dir, "--to", "safetensors", "--out", run_dir], "something else already"),
    ):
        assert main(["export", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("slipstream: ") and err.count("\n") == 1
        assert said in err


def test_it_is_listed(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "export" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "onnxruntime alone" in capsys.readouterr().out
