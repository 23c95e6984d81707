"""A policy stepped by a user, in numpy and in the environment's own units."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch

from slipstream.errors import SlipstreamError
from slipstream.judging.evaluation import evaluate
from slipstream.policies.policy import Policy, evaluate_policy, load_policy
from slipstream.policies.step import PolicyStep
from slipstream.stages.interact import to_tensors
from tests.policies.live_policies import KINDS, live, seeing

EVERY_KIND = pytest.mark.parametrize("name", KINDS)


def bounded(name: str, low: float, high: float) -> Policy:
    policy = live(name)
    return dataclasses.replace(
        policy, spec=dataclasses.replace(policy.spec, action_low=(low,), action_high=(high,))
    )


@EVERY_KIND
def test_steps_of_numpy_equal_those_of_the_actor(name):
    policy = live(name)
    env = policy.open_env(3)
    obs = env.reset(5)
    carry, inner = policy.initial_carry(3), policy.actor.initial_carry(3)
    for _ in range(12):
        output, inner = policy.actor.step(to_tensors(obs, torch.device("cpu")), inner)
        shown = {key: obs[key] for key in policy.module.obs_spec}
        action, carry = policy.step(shown if len(shown) > 1 else shown["state"], carry)
        assert action.shape == (3, 1) and action.dtype == np.float32
        np.testing.assert_allclose(action, 2 * output.mode.numpy(), rtol=0, atol=1e-6)
        obs = env.step(output.mode.numpy()).obs
    env.close()


@EVERY_KIND
def test_one_environment_is_a_row_of_several(name):
    policy = live(name)
    sizes = {key: spec.size for key, spec in policy.module.obs_spec.items()}
    rng = np.random.default_rng(0)
    alone, carry = policy.initial_carry(), policy.initial_carry(2)
    for _ in range(6):
        obs = {key: rng.standard_normal((2, size)) for key, size in sizes.items()}
        action, carry = policy.step(obs, carry)
        single, alone = policy.step({key: value[1] for key, value in obs.items()}, alone)
        assert single.shape == (1,)
        np.testing.assert_allclose(single, action[1], rtol=0, atol=1e-5)


def test_actions_are_rescaled_and_never_step_over_a_bound():
    policy = bounded("mlp", 0.1, 0.3)  # neither has an exact float32
    obs = np.random.default_rng(0).standard_normal((500, 3)) * 100
    action, _ = policy.step(obs, policy.initial_carry(500))
    exact = action.astype(np.float64)
    assert exact.min() >= 0.1 and exact.max() <= 0.3
    assert exact.min() < 0.1001 and exact.max() > 0.2999  # and both bounds are reached
    middle, _ = policy.actor.step({"state": torch.from_numpy(obs).float()}, {})
    np.testing.assert_allclose(action, 0.2 + 0.1 * middle.mode.numpy(), atol=1e-6)


def test_the_carry_knows_the_previous_action():
    policy = live("transformer-keys")
    obs = {"state": np.ones(3), "prev_reward": np.zeros(1)}
    first, carry = policy.step(obs, policy.initial_carry())
    second, _ = policy.step(obs, carry)
    told, _ = policy.step({**obs, "prev_action": first / 2}, carry)
    np.testing.assert_allclose(told, second, atol=1e-6)
    other, _ = policy.step({**obs, "prev_action": np.array([0.9])}, carry)
    assert abs(other - second).max() > 1e-3  # what is shown counts, not what is remembered


def test_the_carry_knows_the_last_observation():
    policy = live("lstm-differences")
    one, two = np.array([0.5, -1.0]), np.array([1.5, -1.5])
    carry = policy.initial_carry()
    first, carry = policy.step(one, carry)
    still, _ = policy.step({"state": one, "state.difference": np.zeros(2)}, policy.initial_carry())
    np.testing.assert_array_equal(first, still)  # nothing has changed at an episode's start
    second, _ = policy.step(two, carry)
    told, _ = policy.step({"state": two, "state.difference": two - one}, carry)
    np.testing.assert_allclose(told, second, atol=1e-6)
    other, _ = policy.step({"state": two, "state.difference": np.zeros(2)}, carry)
    assert abs(other - second).max() > 1e-3


def test_a_carry_that_was_handed_in_can_be_used_again():
    policy = live("transformer")
    _, carry = policy.step(np.ones(3), policy.initial_carry())
    first, _ = policy.step(np.zeros(3), carry)
    again, _ = policy.step(np.zeros(3), carry)
    np.testing.assert_array_equal(first, again)


def test_sampling_differs_and_a_deterministic_policy_does_not():
    torch.manual_seed(0)
    for name, differs in (("gru", True), ("lstm", False)):
        policy = live(name)
        carry = policy.initial_carry()
        mode, _ = policy.step(np.ones(3), carry)
        sampled, _ = policy.step(np.ones(3), carry, deterministic=False)
        assert (not np.array_equal(mode, sampled)) == differs
        assert np.abs(sampled).max() <= 2


def test_observations_are_read_as_the_environment_shows_them():
    policy = live("mlp")
    rows = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    several, _ = policy.step(rows, policy.initial_carry(2))
    shaped, _ = policy.step(rows[:, :, None], policy.initial_carry(2))
    np.testing.assert_array_equal(shaped, several)
    single, _ = policy.step(rows[0][None, :, None], policy.initial_carry(1))
    np.testing.assert_allclose(single, several[:1], atol=1e-6)
    scalar = live("transformer-keys")
    obs = {"state": rows, "prev_reward": np.array([0.5, -1.0])}
    flat, _ = scalar.step(obs, scalar.initial_carry(2))
    obs["prev_reward"] = obs["prev_reward"][:, None]
    np.testing.assert_array_equal(scalar.step(obs, scalar.initial_carry(2))[0], flat)
    one = {"state": rows[0], "prev_reward": np.float32(0.5)}
    np.testing.assert_allclose(scalar.step(one, scalar.initial_carry())[0], flat[0], atol=1e-6)
    policy = seeing()
    obs = {"rgb": np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), np.uint8)}
    obs["state"] = np.zeros((2, 4))
    last, _ = policy.step(obs, policy.initial_carry(2))
    first = {**obs, "rgb": np.moveaxis(obs["rgb"], 3, 1)}
    np.testing.assert_array_equal(policy.step(first, policy.initial_carry(2))[0], last)


WRONG = [
    (np.zeros(4), ["(4,)", "(3,)", "Pendulum-v1"]),
    (np.zeros((2, 4)), ["(2, 4)", "(N, 3)"]),
    (np.zeros((2, 2, 3)), ["(2, 2, 3)", "(3,)"]),
    (0.0, ["shape ()", "(3,)"]),
    (np.zeros((3, 2)), ["(3, 2)", "(3,)"]),
    ("north", ["'state'", "numbers"]),
    ({"stat": np.zeros(3)}, ["stat,", "state"]),
    (np.full(3, np.nan), ["not finite", "nan"]),
]


@pytest.mark.parametrize(("obs", "said"), WRONG, ids=[str(said[0]) for _, said in WRONG])
def test_what_does_not_fit_is_refused_in_one_line(obs, said):
    policy = live("mlp")
    with pytest.raises(SlipstreamError) as error:
        policy.step(obs, policy.initial_carry())
    assert all(word in str(error.value) for word in said)
    assert "\n" not in str(error.value)
    with pytest.raises(SlipstreamError):
        policy.predict(obs)


def test_rows_that_do_not_fit_each_other_are_refused():
    policy = live("transformer-keys")
    with pytest.raises(SlipstreamError, match="reads state, prev_reward: give a dict"):
        policy.step(np.zeros(3), policy.initial_carry())
    with pytest.raises(SlipstreamError, match=r"'state': 2, 'prev_reward': 3"):
        policy.step({"state": np.zeros((2, 3)), "prev_reward": np.zeros((3, 1))}, {})
    policy = live("transformer")
    with pytest.raises(SlipstreamError, match=r"rows .*5.* calls for .*2.* initial_carry\(2\)"):
        policy.step(np.zeros((2, 3)), policy.initial_carry(5))
    with pytest.raises(SlipstreamError, match=r"initial_carry\(1\)"):
        policy.step(np.zeros(3), {})
    _, state = policy.predict(np.zeros((2, 3)))
    with pytest.raises(SlipstreamError, match="3 entries in episode_start"):
        policy.predict(np.zeros((2, 3)), state, [True, False, True])
    with pytest.raises(SlipstreamError, match="state has 1 arrays, but this policy's has 2"):
        policy.predict(np.zeros((2, 3)), state[:1])


def test_images_are_taken_in_uint8_alone():
    policy = seeing()
    obs = {"rgb": np.full((12, 12, 3), 128, np.uint8), "state": np.zeros(4)}
    action, _ = policy.step(obs, policy.initial_carry())
    assert action.shape == (1,)
    with pytest.raises(SlipstreamError, match=r"'rgb' is float64, .* uint8, 0 to 255"):
        policy.step({**obs, "rgb": obs["rgb"] / 255}, policy.initial_carry())


@EVERY_KIND
def test_predict_forgets_where_an_episode_starts(name):
    policy = live(name)
    rng = np.random.default_rng(0)
    sizes = {key: spec.size for key, spec in policy.module.obs_spec.items()}

    def shown() -> dict[str, np.ndarray]:
        return {key: rng.standard_normal((2, size)) for key, size in sizes.items()}

    _, state = policy.predict(shown())
    obs = shown()
    action, _ = policy.predict(obs, state, episode_start=np.array([False, True]))
    carried, _ = policy.predict(obs, state)
    fresh, _ = policy.predict(obs)
    np.testing.assert_allclose(action[0], carried[0], atol=1e-6)
    np.testing.assert_allclose(action[1], fresh[1], atol=1e-6)
    if policy.initial_carry():
        assert abs(carried - fresh).max() > 1e-4


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_stable_baselines3_evaluates_it(name):
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    monitor = pytest.importorskip("stable_baselines3.common.monitor")
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")

    policy = live(name, max_episode_steps=30)

    def make():
        return monitor.Monitor(gym.make("Pendulum-v1", max_episode_steps=30))

    envs = vec_env.DummyVecEnv([make] * 2)
    envs.seed(7)  # environment i is seeded with 7 + i, and goes on from there
    returns, lengths = evaluation.evaluate_policy(
        policy, envs, n_eval_episodes=4, return_episode_rewards=True
    )
    assert lengths == [30] * 4
    ours = evaluate_policy(policy, 2, seed=7)
    assert returns[:2] == pytest.approx(ours.returns, rel=1e-4)
    mean, _ = evaluation.evaluate_policy(policy, make(), n_eval_episodes=1)
    assert mean < 0


def test_evaluate_policy_is_the_evaluation_of_a_run():
    policy = live("transformer", max_episode_steps=20)
    env = policy.open_env(2)
    assert evaluate_policy(policy, 2, seed=3) == evaluate(policy.actor, env, [3, 4])
    env.close()
    with pytest.raises(SlipstreamError, match="episodes is 0"):
        evaluate_policy(policy, 0)


def test_a_saved_policy_is_loaded_from_its_folder(tmp_path):
    policy = live("transformer")
    policy.save(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert loaded.spec == policy.spec and loaded.env == policy.env
    obs = np.ones((2, 3))
    action, _ = policy.step(obs, policy.initial_carry(2))
    np.testing.assert_array_equal(loaded.step(obs, loaded.initial_carry(2))[0], action)
    with pytest.raises(SlipstreamError, match="could not write"):
        policy.save(tmp_path / "policy" / "config.json")


def test_the_step_leaves_the_actor_as_it_is():
    policy = live("lstm")
    before = {key: value.clone() for key, value in policy.actor.state_dict().items()}
    step = PolicyStep(policy.actor, policy.spec)
    assert set(step.state_dict()) == {f"actor.{key}" for key in before}
    assert all(torch.equal(value, before[key]) for key, value in policy.actor.state_dict().items())
