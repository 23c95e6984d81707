"""A task of POPGym, as the documentation has it, shortened."""

import importlib.util

import pytest

from slipstream.cli import main
from slipstream.policies.policy import evaluate_policy, load_policy
from tests.tiny_runs import events

TASK = "popgym.envs:popgym-NoisyPositionOnlyPendulumEasy-v0"


@pytest.mark.skipif(
    importlib.util.find_spec("popgym") is None, reason="popgym is not installed: make setup"
)
def test_both_stages_of_the_noisy_pendulum(tmp_path):
    run_dir = tmp_path / "run"
    shorter = (
        *("--total-steps", "800", "--learning-starts", "300", "--utd-ratio", "0.1"),
        *("--eval.every", "300", "--eval.episodes", "2", "--cloning.burst", "5"),
        *("--checkpoint-every", "100000", "--no-tensorboard", "--matmul", "default"),
    )
    arguments = ["train", TASK, "--preset", "popgym", *shorter, "--run-dir", str(run_dir)]
    assert main([*arguments, "--quiet"]) == 0
    assert events(run_dir, "switch")
    policy = load_policy(run_dir)
    assert policy.actor.context_length == 8
    assert 0 <= evaluate_policy(policy, 2, 0).mean <= 1  # what an episode can bring
