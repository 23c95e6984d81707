"""A saved policy acts as the one that was trained, and says so where it cannot be loaded."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from slipstream.checkpoint import save_checkpoint
from slipstream.config import EnvConfig, RunConfig
from slipstream.envs.making import make_env
from slipstream.errors import SlipstreamError
from slipstream.judging.evaluation import evaluate
from slipstream.networks import BACKBONES, NetworksConfig, Normalizer
from slipstream.networks.mlp import MLPConfig
from slipstream.networks.transformer import TransformerConfig
from slipstream.policies.policy import describe_policy, load_policy
from slipstream.stages.learners import ALGORITHMS, algorithm_class
from tests.networks.policies import actor_of

NETWORKS = NetworksConfig(
    mlp=MLPConfig((16, 8)),
    transformer=TransformerConfig(context_length=4, d_model=8, n_layers=2, d_ff=8, gate="gru"),
)


def save(folder, kind="transformer", algorithm="sac", normalize_obs=True):
    env = make_env("Pendulum-v1", env_kwargs={"max_episode_steps": 20})
    normalizer = Normalizer(3) if normalize_obs else None
    torch.manual_seed(0)
    head = algorithm_class(algorithm).head
    normalizers = {} if normalizer is None else {"state": normalizer}
    actor = actor_of(kind, NETWORKS, head, env.spec, normalizers)
    if normalizer is not None:
        normalizer.observe(torch.randn(50, 3) * 3 + 1)
    config = RunConfig(
        "Pendulum-v1",
        algorithm=algorithm,
        transformer=kind,
        networks=NETWORKS,
        env=EnvConfig(normalize_obs=normalize_obs),
    )
    described = describe_policy(config, env.spec, "transformer", ("state",))
    return actor, env, save_checkpoint(folder, 1, (described, dict(actor.state_dict())), {})


@pytest.mark.parametrize("normalize_obs", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", BACKBONES)
def test_a_loaded_policy_acts_as_the_saved_one(kind, algorithm, normalize_obs, tmp_path):
    actor, env, path = save(tmp_path, kind, algorithm, normalize_obs)
    torch.manual_seed(9)
    policy = load_policy(path)
    loaded = policy.actor
    assert policy.spec == env.spec
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    carry, other = actor.initial_carry(5), loaded.initial_carry(5)
    for _ in range(7):
        obs = {"state": torch.randn(5, 3)}
        output, carry = actor.step(obs, carry)
        same, other = loaded.step(obs, other)
        # Not bit for bit: torch picks another kernel for some products of frozen weights.
        torch.testing.assert_close(output.mode, same.mode, rtol=1e-5, atol=1e-6)


def damaged(folder, **changes):
    _, _, path = save(folder)
    config = path / "policy" / "config.json"
    described = json.loads(config.read_text())
    for key, value in changes.items():
        if value is None:
            del described[key]
        else:
            described[key] = value
    text = json.dumps(described)
    config.write_text(text)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["policy/config.json"] = len(text)
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"head": None},
        {"head": "cubist"},
        {"kind": "gpt"},
        {"kind": "mlp"},  # whose weights these are not
        {"head": "deterministic"},
        {"networks": {"transformer": {"d_model": "wide"}}},
        {"networks": {"transformer": {"d_model": -1}}},
        {"networks": 3},
        {"spec": {}},
        {"env": {"num_envs": "many"}},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_one_line(changes, tmp_path):
    path = damaged(tmp_path, **changes)
    with pytest.raises(SlipstreamError) as error:
        load_policy(path)
    assert "\n" not in str(error.value)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(SlipstreamError, match="does not exist"):
        load_policy(tmp_path / "nonesuch")
    _, _, path = save(tmp_path)
    weights = path / "policy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(SlipstreamError, match="half-written"):
        load_policy(path)
    shutil.rmtree(path / "policy")
    with pytest.raises(SlipstreamError):
        load_policy(path)


def test_evaluation_runs_one_episode_for_each_seed():
    env = make_env("Pendulum-v1", num_envs=3, env_kwargs={"max_episode_steps": 20})
    actor = actor_of("mlp", NETWORKS, spec=env.spec)
    first = evaluate(actor, env, [5, 6, 7])
    assert first.lengths == (20, 20, 20) and first.num_steps == 60 and first.successes is None
    assert evaluate(actor, env, [5, 6, 7]) == first
    assert evaluate(actor, env, [7, 6, 5]).returns == pytest.approx(first.returns[::-1])
    assert len(set(first.returns)) == 3
    metrics = first.metrics("transformer")
    assert metrics["eval/transformer/return"] == pytest.approx(np.mean(first.returns))
    assert metrics["eval/transformer/return_std"] == pytest.approx(np.std(first.returns))
    assert metrics["eval/transformer/returns"] == list(first.returns)
    assert "eval/transformer/success_once" not in metrics


def test_evaluation_takes_the_first_episode_of_each_environment():
    """Environment 0 has begun its second and third episode before environment 1 ends its first."""
    from slipstream.envs.probe import identity_envs, identity_reward

    env = make_env(identity_envs([(2, 3), (7,)]))
    result = evaluate(None, env, [0, 1])
    assert result.lengths == (2, 7) and result.num_steps == 14
    assert result.returns == tuple(
        float(sum(identity_reward(i, 0, t + 1) for t in range(n))) for i, n in enumerate((2, 7))
    )


def test_evaluation_compares_two_policies_on_the_states_of_the_first():
    env = make_env("slipstream/ProbeMemory-v0", num_envs=4, env_kwargs={"delay": 2})
    torch.manual_seed(0)
    actor = actor_of("transformer", NETWORKS, spec=env.spec)
    assert evaluate(actor, env, range(4), actor).action_error == 0.0
    torch.manual_seed(1)
    other = actor_of("mlp", NETWORKS, spec=env.spec)
    result = evaluate(actor, env, range(4), other)
    assert result.action_error is not None and 0 < result.action_error < 4
    assert result.successes is not None and len(result.successes) == 4
    assert "eval/accelerator/success_once" in result.metrics("accelerator")


def test_an_episode_without_end_is_told_of(monkeypatch):
    monkeypatch.setattr(sys.modules["slipstream.judging.evaluation"], "MAX_STEPS", 50)
    env = make_env("Pendulum-v1", env_kwargs={"max_episode_steps": 1000})
    with pytest.raises(SlipstreamError, match=r"did not end within 50 .*max-episode-steps"):
        evaluate(None, env, [0])
