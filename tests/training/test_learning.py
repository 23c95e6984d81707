"""Both stages on a real task, small enough for every run of the tests."""

from dataclasses import replace

from slipstream.policies.policy import load_policy
from slipstream.presets import preset
from slipstream.training import train
from tests.tiny_runs import events, lines


def test_pendulum_is_learnt_by_the_accelerator_cloned_and_kept(tmp_path):
    """The values are those of the method's page: a matched switch, no collapse after it."""
    config = replace(preset("pendulum", "Pendulum-v1"), tensorboard=False, matmul="default")
    run_dir = train(config, tmp_path / "run", show_progress=False)

    (switch,) = events(run_dir, "switch")
    assert "on 2 checks in a row" in switch["reason"]
    assert switch["step"] <= 7_000
    assert not events(run_dir, "rollback")

    def returns(actor, stage):
        key = f"eval/{actor}/return"
        return [line[key] for line in lines(run_dir) if line["stage"] == stage and key in line]

    random = returns("random", "accelerate")[0]
    accelerator = returns("accelerator", "accelerate")[-1]
    clone = returns("transformer", "accelerate")[-1]
    assert random < -800
    assert (clone - random) / (accelerator - random) >= 0.95
    online = returns("transformer", "online")
    assert len(online) >= 2
    assert min(online) >= -300
    assert online[-1] >= -200
    policy = load_policy(run_dir, "best")
    assert (policy.actor.context_length, policy.spec.env_id) == (3, "Pendulum-v1")
