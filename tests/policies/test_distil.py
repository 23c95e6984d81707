"""A trained policy cloned into a smaller one."""

from dataclasses import replace

import pytest

from slipstream.cli import main
from slipstream.errors import SlipstreamError
from slipstream.policies.distil import compare, distil_config
from slipstream.policies.policy import load_policy
from slipstream.training import train
from tests.tiny_runs import lines, tiny


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return train(tiny(), tmp_path_factory.mktemp("teacher"), show_progress=False)


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_the_pupil_comes_to_act_as_its_teacher(kind, teacher, tmp_path):
    config = distil_config(teacher, kind, total_steps=300, own_episodes=1)
    config = replace(config, cloning=replace(config.cloning, burst=150, lr=3e-3))
    run_dir = train(config, tmp_path, show_progress=False)
    told = [
        line["clone/own_state_error"] for line in lines(run_dir) if "clone/own_state_error" in line
    ]
    assert told[-1] < 0.3 * told[0]
    assert all(
        line.get("num_updates", 0) == 0 for line in lines(run_dir)
    )  # the teacher stands still
    pupil = load_policy(run_dir)
    assert pupil.description["kind"] == kind
    found = compare(teacher, run_dir, episodes=2)
    assert set(found) == {"teacher", "pupil"}
    assert len(found["pupil"].returns) == 2 and found["pupil"].microseconds > 0
    assert found["pupil"].num_parameters != found["teacher"].num_parameters


def test_by_the_command_line(teacher, tmp_path, capsys):
    arguments = ["distil", str(teacher), "--to", "mlp", "--total-steps", "80", "--episodes", "1"]
    assert main([*arguments, "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "teacher: return" in said and "pupil: return" in said and "microseconds" in said


def test_what_cannot_be_distilled_is_refused_in_one_line(teacher, tmp_path, capsys):
    with pytest.raises(SlipstreamError, match="nonesuch"):
        distil_config(teacher, "nonesuch", 100, 0)
    assert main(["distil", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err
