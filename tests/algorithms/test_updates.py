"""One update against the papers' formulas, written plainly."""

import copy
from dataclasses import replace

import pytest
import torch

from slipstream.algorithms.targets import hard_copy, polyak
from slipstream.errors import SlipstreamError
from slipstream.networks import BACKBONES
from slipstream.stages.learners import AlgorithmsConfig, algorithm_class, build_learner
from tests.algorithms.batches import random_batch
from tests.algorithms.learners import ALGORITHMS, make_learner

KINDS = list(BACKBONES)


@pytest.fixture
def double_precision():
    """Adam makes whole steps of gradients that are zero but for rounding: round finely."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_same_weights(module, reference):
    for one, other in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def mean(x, mask, loss_steps):
    """Mean over the steps that count, taken one by one."""
    counted = [x[b, t] for b in range(len(x)) for t in range(-loss_steps, 0) if mask[b, t]]
    return torch.stack(counted).mean()


def blend(target, source, tau):
    with torch.no_grad():
        for one, other in zip(target.parameters(), source.parameters(), strict=True):
            one.copy_((1 - tau) * one + tau * other)


@pytest.mark.parametrize("memory", ["none", "transformer"])
@pytest.mark.parametrize("loss_steps", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_td3_equals_a_plain_reference(kind, loss_steps, memory, double_precision):
    made = make_learner("td3", kind, memory)
    config, learner = made.learner.config, made.learner
    actor, critic, critic_target = copy.deepcopy((made.actor, made.critic, made.critic_target))
    actor_target = copy.deepcopy(actor)
    actor_adam = torch.optim.Adam(actor.parameters(), config.actor_lr)
    critic_adam = torch.optim.Adam(critic.parameters(), config.critic_lr)

    for update in (1, 2, 3, 4):
        batch = random_batch(update, loss_steps=loss_steps)
        torch.manual_seed(update)
        metrics = learner.update(batch)

        torch.manual_seed(update)
        n = loss_steps
        with torch.no_grad():
            next_action = actor_target(batch.next_obs, batch.next_valid, n).mode
            noise = (torch.randn_like(next_action) * 0.2).clamp(-0.5, 0.5)
            next_action = (next_action + noise).clamp(-1, 1)
            next_q = critic_target(batch.next_obs, batch.next_valid, next_action)
            target = batch.reward[:, -n:] + 0.99 * (1 - batch.terminated[:, -n:]) * next_q.min(0)[0]
        q = critic(batch.obs, batch.obs_valid, batch.action[:, -n:])
        critic_loss = mean(((q - target) ** 2).sum(0), batch.mask, n)
        critic_adam.zero_grad()
        critic_loss.backward()
        critic_adam.step()
        torch.testing.assert_close(metrics["critic_loss"], critic_loss.detach())
        torch.testing.assert_close(metrics["target_q"], mean(target, batch.mask, n))
        assert ("actor_loss" in metrics) == (update % 2 == 0)
        if update % 2 == 0:
            value = critic(batch.obs, batch.obs_valid, actor(batch.obs, batch.obs_valid, n).mode)[0]
            actor_loss = -mean(value, batch.mask, n)
            actor_adam.zero_grad()
            actor_loss.backward()
            actor_adam.step()
            torch.testing.assert_close(metrics["actor_loss"], actor_loss.detach())
            blend(actor_target, actor, 0.005)
            blend(critic_target, critic, 0.005)

    assert_same_weights(made.actor, actor)
    assert_same_weights(made.critic, critic)
    assert_same_weights(made.critic_target, critic_target)
    assert_same_weights(learner.actor_target, actor_target)


@pytest.mark.parametrize("memory", ["none", "transformer"])
@pytest.mark.parametrize("loss_steps", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_sac_equals_a_plain_reference(kind, loss_steps, memory, double_precision):
    made = make_learner("sac", kind, memory, alpha=0.3)
    config, learner = made.learner.config, made.learner
    actor, critic, critic_target = copy.deepcopy((made.actor, made.critic, made.critic_target))
    log_alpha = torch.tensor([0.3]).log().requires_grad_()
    actor_adam = torch.optim.Adam(actor.parameters(), config.actor_lr)
    critic_adam = torch.optim.Adam(critic.parameters(), config.critic_lr)
    alpha_adam = torch.optim.Adam([log_alpha], config.alpha_lr)

    for update in (1, 2, 3):
        batch = random_batch(update, loss_steps=loss_steps)
        torch.manual_seed(update)
        metrics = learner.update(batch)

        torch.manual_seed(update)
        n, alpha = loss_steps, log_alpha.detach().exp()
        with torch.no_grad():
            next_action, next_log_prob = actor(
                batch.next_obs, batch.next_valid, n
            ).rsample_with_log_prob()
            next_q = critic_target(batch.next_obs, batch.next_valid, next_action).min(0)[0]
            target = batch.reward[:, -n:] + 0.99 * (1 - batch.terminated[:, -n:]) * (
                next_q - alpha * next_log_prob
            )
        q = critic(batch.obs, batch.obs_valid, batch.action[:, -n:])
        critic_loss = mean(((q - target) ** 2).sum(0), batch.mask, n)
        critic_adam.zero_grad()
        critic_loss.backward()
        critic_adam.step()

        action, log_prob = actor(batch.obs, batch.obs_valid, n).rsample_with_log_prob()
        value = critic(batch.obs, batch.obs_valid, action).min(0)[0]
        actor_loss = mean(alpha * log_prob - value, batch.mask, n)
        actor_adam.zero_grad()
        actor_loss.backward()
        actor_adam.step()

        alpha_loss = -mean(log_alpha * (log_prob.detach() - 2.0), batch.mask, n)
        alpha_adam.zero_grad()
        alpha_loss.backward()
        alpha_adam.step()
        blend(critic_target, critic, 0.005)
        torch.testing.assert_close(metrics["critic_loss"], critic_loss.detach())
        torch.testing.assert_close(metrics["actor_loss"], actor_loss.detach())
        torch.testing.assert_close(metrics["entropy"], -mean(log_prob.detach(), batch.mask, n))
        torch.testing.assert_close(metrics["alpha"], alpha[0])

    assert_same_weights(made.actor, actor)
    assert_same_weights(made.critic, critic)
    assert_same_weights(made.critic_target, critic_target)
    torch.testing.assert_close(learner.log_alpha, log_alpha)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_count_changes_nothing(algorithm, kind):
    """Masked steps' rewards, actions and ends reach no weight; a counting step's do."""
    batch = random_batch(loss_steps=2)
    uncounted = batch.mask == 0
    assert uncounted[:, -2].any() and not uncounted[:, -2].all()
    garbage = replace(
        batch,
        reward=torch.where(uncounted, 1e3, batch.reward),
        action=torch.where(uncounted[..., None], 0.123, batch.action),
        terminated=torch.where(uncounted, 1 - batch.terminated, batch.terminated),
    )
    counted = replace(batch, reward=torch.where(uncounted, batch.reward, batch.reward + 1))
    weights = []
    for each in (batch, garbage, counted):
        made = make_learner(algorithm, kind)
        torch.manual_seed(1)
        made.learner.update(each)
        weights.append(torch.cat([p.detach().flatten() for p in made.critic.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_terminal_states_stop_bootstrapping(algorithm):
    batch = random_batch(length=1)
    made = make_learner(algorithm)
    with torch.no_grad():  # a target far above every reward
        list(made.critic_target.ensemble.parameters())[-1].add_(100)
    ended = replace(batch, terminated=torch.ones_like(batch.terminated))
    going = replace(batch, terminated=torch.zeros_like(batch.terminated))
    assert made.learner.update(ended)["target_q"].item() == pytest.approx(
        batch.reward.mean().item()
    )
    assert made.learner.update(going)["target_q"].item() > 90


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_learner_goes_on_after_saving_as_if_never_saved(algorithm, kind):
    batches = [random_batch(i) for i in range(6)]
    torch.manual_seed(5)
    whole = make_learner(algorithm, kind)
    for i, batch in enumerate(batches):
        torch.manual_seed(100 + i)
        whole.learner.update(batch)

    first = make_learner(algorithm, kind)
    for i in range(3):
        torch.manual_seed(100 + i)
        first.learner.update(batches[i])
    second = make_learner(algorithm, kind, seed=9)
    for name in ("actor", "critic", "critic_target"):
        getattr(second, name).load_state_dict(getattr(first, name).state_dict())
    second.learner.load_state_dict(copy.deepcopy(first.learner.state_dict()))
    for i in range(3, 6):
        torch.manual_seed(100 + i)
        second.learner.update(batches[i])
    for name in ("actor", "critic", "critic_target"):
        for one, other in zip(
            getattr(whole, name).parameters(), getattr(second, name).parameters(), strict=True
        ):
            assert torch.equal(one, other)
    assert whole.learner.num_updates == second.learner.num_updates == 6


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_metrics_are_detached_scalars(algorithm):
    made = make_learner(algorithm)
    metrics = made.learner.update(random_batch()) | made.learner.update(random_batch(1))
    assert {"critic_loss", "actor_loss", "q", "target_q", "action_saturation"} <= set(metrics)
    for value in metrics.values():
        assert value.shape == () and not value.requires_grad and value.isfinite()
    assert 0 <= metrics["action_saturation"] <= 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_exploration_stays_in_bounds_and_differs_from_the_mode(algorithm):
    made = make_learner(algorithm)
    torch.manual_seed(0)
    output, _ = made.actor.step({"state": 10 * torch.randn(500, 4)}, made.actor.initial_carry(500))
    action = made.learner.explore(output)
    assert action.shape == (500, 2) and action.abs().max() <= 1
    assert not torch.equal(action, output.mode)


def test_tau_weighs_the_new_parameters():
    target, source = [torch.zeros(2)], [torch.ones(2)]
    polyak(target, source, 0.1)
    torch.testing.assert_close(target[0], torch.full((2,), 0.1))
    assert source[0].tolist() == [1, 1]


def test_a_hard_copy_is_equal_and_frozen():
    source, target = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    hard_copy(target, source)
    assert torch.equal(target.weight, source.weight)
    assert not target.weight.requires_grad and source.weight.requires_grad


def test_a_fixed_temperature_stays():
    made = make_learner("sac", tune_alpha=False, alpha=0.2)
    alphas = [made.learner.update(random_batch(i))["alpha"].item() for i in range(3)]
    assert alphas == pytest.approx([0.2] * 3)


@pytest.mark.parametrize(
    ("algorithm", "field", "value"),
    [
        ("td3", "gamma", 1.0),
        ("td3", "gamma", -0.1),
        ("td3", "policy_delay", 0),
        ("td3", "tau", 0.0),
        ("td3", "tau", 1.5),
        ("td3", "actor_lr", -1e-3),
        ("td3", "critic_lr", -0.1),
        ("td3", "exploration_noise", -0.1),
        ("td3", "target_policy_noise", -0.1),
        ("td3", "target_noise_clip", -0.1),
        ("sac", "gamma", 1.0),
        ("sac", "alpha", 0.0),
        ("sac", "tau", -0.5),
        ("sac", "actor_lr", -0.1),
        ("sac", "critic_lr", -1.0),
        ("sac", "alpha_lr", -1.0),
    ],
)
def test_impossible_settings_are_refused(algorithm, field, value):
    with pytest.raises(SlipstreamError, match=rf"{algorithm}\.{field}.*{value}"):
        make_learner(algorithm, **{field: value})


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(SlipstreamError, match=r"'ppo'.*td3 or sac"):
        algorithm_class("ppo")
    made = make_learner("td3")
    with pytest.raises(SlipstreamError, match="'ppo'"):
        build_learner("ppo", AlgorithmsConfig(), made.actor, made.critic, made.critic_target)
