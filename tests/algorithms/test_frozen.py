"""A policy that stays as it is: its critics learn its values, and nothing moves it."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from slipstream.accelerators.frozen import (
    ActionHead,
    CalledPolicy,
    Spread,
    SpreadHead,
    gaussian_entropy,
    std_of_entropy,
)
from slipstream.algorithms.cloning import Cloning
from slipstream.envs.making import make_env
from slipstream.networks import NetworksConfig
from slipstream.networks.actor import Actor
from slipstream.networks.critic import CriticConfig
from slipstream.networks.heads import SquashedGaussian
from slipstream.replay import ReplayBuffer
from slipstream.stages.interact import Interaction
from slipstream.stages.learners import AlgorithmsConfig, build_learner, frozen_copy
from tests.algorithms.batches import random_batch
from tests.algorithms.learners import ALGORITHMS, make_learner
from tests.networks.policies import actor_of, critic_of

GAMMA = 0.8
STD = std_of_entropy(-1.0)


def called_actor(call: Callable[[np.ndarray], np.ndarray], spec, algorithm) -> Actor:
    """A policy without weights that is called."""
    actor = actor_of("mlp", NetworksConfig(), spec=spec)
    actor.backbone = CalledPolicy(call, "called", spec)
    actor.head = ActionHead() if algorithm == "td3" else SpreadHead(ActionHead(), STD)
    return actor


def evaluate_policy(algorithm, call, num_updates, name="ProbeAction", **fields):
    """Critics of a frozen policy learnt from its own noisy actions in a probe."""
    torch.manual_seed(0)
    env = make_env(f"slipstream/{name}-v0", num_envs=4)
    actor = called_actor(call, env.spec, algorithm)
    critic = critic_of(NetworksConfig(critic=CriticConfig(hidden=(32,))), spec=env.spec)
    settings = {"gamma": GAMMA, "tau": 0.1, "critic_lr": 1e-2, **fields}
    kind = type(getattr(AlgorithmsConfig(), algorithm))
    config = AlgorithmsConfig(**{algorithm: kind(**settings)})
    learner = build_learner(algorithm, config, actor, critic, frozen_copy(critic))
    replay = ReplayBuffer(env.spec, 2_000, env.num_envs)
    interaction = Interaction(env, replay, {})
    interaction.begin(actor, seed=0)
    for _ in range(200):
        interaction.step(actor, learner.explore)
    metrics = {}
    for _ in range(num_updates):
        metrics = learner.update(replay.sample(64, 1))
    batch = replay.sample(256, 1)
    with torch.no_grad():
        action = actor(batch.obs, batch.obs_valid).mode
        value = critic(batch.obs, batch.obs_valid, action)[:, :, 0]
    return batch.obs["state"][:, 0, 0], value, learner, metrics


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_critics_learn_the_value_of_what_the_policy_does(algorithm):
    """1 - (a - 0.8 obs)^2 at a = 0.3: far below the best policy's 1."""
    obs, value, _, _ = evaluate_policy(algorithm, lambda obs: np.full((len(obs), 1), 0.3), 300)
    expected = 1 - (0.3 - 0.8 * obs).square()
    torch.testing.assert_close(value, expected.expand_as(value), rtol=0, atol=0.12)
    assert expected.min() < 0.2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_values_go_beyond_one_step(algorithm):
    fields = {"alpha": 1e-3, "tune_alpha": False} if algorithm == "sac" else {}
    call = lambda obs: np.zeros((len(obs), 1))  # noqa: E731
    obs, value, _, _ = evaluate_policy(algorithm, call, 150, "ProbeDiscount", **fields)
    expected = torch.where(obs < 0.5, GAMMA, 1.0)
    torch.testing.assert_close(value, expected.expand_as(value), rtol=0, atol=0.12)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_frozen_network_is_never_moved_but_its_critics_are(algorithm):
    made = make_learner(algorithm)
    made.actor.requires_grad_(False)
    before = copy.deepcopy(made.actor.state_dict())
    fresh = build_learner(
        algorithm, AlgorithmsConfig(), made.actor, made.critic, made.critic_target
    )
    critic = copy.deepcopy(made.critic.state_dict())
    target = copy.deepcopy(made.critic_target.state_dict())
    for i in range(4):
        metrics = fresh.update(random_batch(i))
        assert "actor_loss" not in metrics
    assert all(torch.equal(v, before[k]) for k, v in made.actor.state_dict().items())
    assert not any(torch.equal(v, critic[k]) for k, v in made.critic.state_dict().items())
    assert not any(torch.equal(v, target[k]) for k, v in made.critic_target.state_dict().items())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_learner_of_a_frozen_policy_goes_on_after_saving(algorithm):
    made = make_learner(algorithm)
    made.actor.requires_grad_(False)
    config = AlgorithmsConfig()
    whole = build_learner(algorithm, config, made.actor, made.critic, made.critic_target)
    whole.update(random_batch(0))
    other = make_learner(algorithm, seed=5)
    other.actor.requires_grad_(False).load_state_dict(made.actor.state_dict())
    other.critic.load_state_dict(made.critic.state_dict())
    other.critic_target.load_state_dict(made.critic_target.state_dict())
    resumed = build_learner(algorithm, config, other.actor, other.critic, other.critic_target)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for learner in (whole, resumed):
        torch.manual_seed(3)
        for i in range(3):
            learner.update(random_batch(i))
    for one, two in zip(made.critic.parameters(), other.critic.parameters(), strict=True):
        assert torch.equal(one, two)


def test_partly_frozen_networks_keep_what_is_frozen():
    for algorithm in ALGORITHMS:
        made = make_learner(algorithm)
        made.actor.backbone.requires_grad_(False)  # pyright: ignore
        before = copy.deepcopy(made.actor.state_dict())
        learner = build_learner(
            algorithm, AlgorithmsConfig(), made.actor, made.critic, made.critic_target
        )
        for i in range(4):
            learner.update(random_batch(i))
        for name, value in made.actor.state_dict().items():
            assert torch.equal(value, before[name]) == name.startswith("backbone"), name


def test_the_temperature_settles_where_the_spread_pays():
    """With Q = -c (a - mode)^2 / 2, SAC's best spread is alpha = c std^2: here c = 2."""
    _, _, learner, metrics = evaluate_policy(
        "sac", lambda obs: 0.8 * obs, 900, alpha_lr=2e-2, alpha=1.0
    )
    alpha = learner.log_alpha.exp().item()  # pyright: ignore
    assert alpha == pytest.approx(2 * STD**2, rel=0.5) and alpha < 0.03
    assert "spread_cost" in metrics


def test_a_spread_has_the_entropy_that_it_says():
    std = std_of_entropy(-1.5)
    assert gaussian_entropy(std) == pytest.approx(-1.5)
    output = Spread(torch.full((20_000, 2), 0.2), std)
    _, log_prob = output.rsample_with_log_prob()
    assert log_prob.shape == (20_000,) and log_prob == pytest.approx(3.0)
    sample = output.sample()
    assert sample.std() == pytest.approx(std, rel=0.05) and sample.mean() == pytest.approx(
        0.2, abs=0.01
    )
    assert Spread(torch.ones(100, 1), std).sample().max() == 1.0


@pytest.mark.parametrize("mode", [0.0, 0.5, -0.7])
def test_a_clone_with_its_log_std_spreads_alike(mode):
    torch.manual_seed(0)
    spread = Spread(torch.full((50_000, 1), mode), STD)
    clone = SquashedGaussian(spread.mean, spread.log_std)
    torch.testing.assert_close(clone.mode, spread.mode, rtol=0, atol=1e-5)
    assert clone.sample().std() == pytest.approx(STD, rel=0.1)


def test_a_saturated_action_gives_no_endless_log_std():
    spread = Spread(torch.tensor([[-1.0, 1.0, 0.999]]), STD)
    assert spread.log_std.isfinite().all() and spread.log_std.max() <= 1e-6
    assert spread.mean.isfinite().all()


def test_a_called_policy_is_cloned_whole():
    """The student of a policy without a distribution learns its action and its spread."""
    torch.manual_seed(0)
    networks = NetworksConfig()
    student = actor_of("transformer", networks, "squashed_gaussian")
    cloning = Cloning(student, 3e-3)
    label = None
    for i in range(200):
        batch = random_batch(i, size=64)
        action = torch.tanh(batch.obs["state"][:, -1:, :2])
        label = Spread(action, STD)
        cloning.update(batch, label)
    batch = random_batch(0, size=64)
    output = student(batch.obs, batch.obs_valid, 1)
    label = Spread(torch.tanh(batch.obs["state"][:, -1:, :2]), STD)
    assert (output.mode - label.mode).square().mean() < 0.02
    assert (output.log_std - label.log_std).abs().mean() < 0.4  # pyright: ignore
