"""Every algorithm with every policy on environments whose values are known.

The replay is filled by uniform actions; the updates must find the rest.
"""

from typing import Literal

import pytest
import torch

from slipstream.envs import probe
from slipstream.envs.making import make_env
from slipstream.judging.evaluation import evaluate
from slipstream.networks import BACKBONES, NetworksConfig, common_context
from slipstream.networks.critic import CriticConfig
from slipstream.networks.mlp import MLPConfig
from slipstream.networks.recurrent import RecurrentConfig
from slipstream.networks.transformer import TransformerConfig
from slipstream.replay import ReplayBuffer
from slipstream.stages.interact import Interaction
from tests.algorithms.learners import ALGORITHMS, make_learner

GAMMA = 0.8
MEMORYLESS = {"mlp"}
FIELDS = {
    "td3": {"exploration_noise": 0.0},
    # A temperature as good as nothing: the values are those without an entropy bonus.
    "sac": {"alpha": 1e-3, "tune_alpha": False},
}
CASES = pytest.mark.parametrize(
    ("algorithm", "kind"), [(a, k) for a in ALGORITHMS for k in BACKBONES]
)


def learn(
    name,
    algorithm,
    kind,
    num_updates,
    memory: Literal["none", "transformer", "lstm", "gru"] = "none",
    **env_kwargs,
):
    """Uniform actions in the probe, then updates: the learner and what it was learnt from."""
    env = make_env(f"slipstream/{name}-v0", num_envs=4, env_kwargs=env_kwargs)
    made = make_learner(
        algorithm,
        kind,
        spec=env.spec,
        networks=NetworksConfig(
            mlp=MLPConfig((32,)),
            recurrent=RecurrentConfig(embed_size=16, hidden_size=16, context_length=5, burn_in=1),
            transformer=TransformerConfig(d_model=16, d_ff=16, n_heads=1),
            critic=CriticConfig(memory=memory, hidden=(32,)),
        ),
        gamma=GAMMA,
        tau=0.1,
        actor_lr=5e-3,
        critic_lr=1e-2,
        **FIELDS.get(algorithm, {}),
    )
    replay = ReplayBuffer(env.spec, 2_000, env.num_envs)
    interaction = Interaction(env, replay, {})
    interaction.begin(made.actor, seed=0)
    for _ in range(200):
        interaction.step(made.actor, made.learner.explore, random=True)
    loss_steps = max(made.actor.loss_steps, made.critic.loss_steps)
    context = common_context((made.actor, made.critic), loss_steps)
    for _ in range(num_updates):
        made.learner.update(replay.sample(64, context, loss_steps))
    return made, replay, context


@torch.no_grad()
def values(made, replay, context):
    """Last observations of many windows, the policy's actions there and their values."""
    batch = replay.sample(256, context)
    action = made.actor(batch.obs, batch.obs_valid).mode
    value = made.critic(batch.obs, batch.obs_valid, action)[:, :, 0]
    return batch.obs["state"][:, -1, 0], action[:, 0, 0], value


@CASES
def test_a_constant_value(algorithm, kind):
    _, _, value = values(*learn("ProbeConstant", algorithm, kind, 120))
    torch.testing.assert_close(value, torch.ones_like(value), rtol=0, atol=0.1)


@CASES
def test_a_value_told_by_the_observation(algorithm, kind):
    obs, _, value = values(*learn("ProbeObservation", algorithm, kind, 80))
    torch.testing.assert_close(value, obs.expand_as(value), rtol=0, atol=0.15)


@CASES
def test_a_reward_to_come_is_discounted(algorithm, kind):
    obs, _, value = values(*learn("ProbeDiscount", algorithm, kind, 150))
    expected = torch.where(obs < 0.5, GAMMA, 1.0)
    assert probe.ProbeDiscount.value(0.0, GAMMA) == GAMMA
    torch.testing.assert_close(value, expected.expand_as(value), rtol=0, atol=0.12)


@CASES
def test_a_time_limit_is_no_end(algorithm, kind):
    _, _, value = values(*learn("ProbeTruncation", algorithm, kind, 250))
    expected = probe.ProbeTruncation.value(GAMMA)
    assert expected == pytest.approx(5.0)
    # Taken for terminal, the last of ten steps alone would pull the mean below 4.
    torch.testing.assert_close(value, torch.full_like(value, expected), rtol=0, atol=0.4)


@CASES
def test_the_best_action_is_found(algorithm, kind):
    obs, action, value = values(*learn("ProbeAction", algorithm, kind, 300))
    error = action - probe.ProbeAction.best_action(obs)
    assert error.square().mean() < 0.04  # the reward forgone; the best constant action forgoes 0.21
    assert (value - probe.ProbeAction.value).abs().mean() < 0.1


@CASES
def test_memory_is_used_where_there_is_one(algorithm, kind):
    made, _, _ = learn("ProbeMemory", algorithm, kind, 300, memory="transformer", delay=2)
    env = make_env("slipstream/ProbeMemory-v0", num_envs=32, env_kwargs={"delay": 2})
    result = evaluate(made.actor, env, range(32))
    assert result.successes is not None
    if kind in MEMORYLESS:
        assert result.mean < 0.2 and sum(result.successes) < 28
    else:
        assert result.mean > 0.9 and all(result.successes)
