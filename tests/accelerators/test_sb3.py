"""Models of Stable-Baselines3 act and judge here as they do there, and learn on where they can."""

import json
import shutil
import zipfile
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from slipstream.accelerators import bring, describe_brought
from slipstream.envs.observation import ObservationConfig
from slipstream.errors import SlipstreamError
from slipstream.networks import NetworksConfig
from slipstream.networks.critic import CriticConfig
from slipstream.stages.accelerate import AccelerateConfig
from tests.accelerators.models import (
    OFF_POLICY,
    SETTINGS,
    Shows,
    make_model,
    observations,
    our_actions,
    pendulum,
    rewrite,
    run_config,
    saved_model,
    scaled,
    spec_of,
    vec_env,
    with_gamma,
    write_model,
)
from tests.tiny_runs import tiny

FROZEN = AccelerateConfig(learn=False)
OURS = {"SAC": "sac", "TQC": "sac", "TD3": "td3", "DDPG": "td3", "PPO": "sac", "A2C": "td3"}


def brought_from(path, algorithm="sac", spec=None, **fields):
    config = run_config(f"sb3:{path}", algorithm, **fields)
    found = bring(config, spec or spec_of(config))
    assert found is not None
    return found


def their_values(model, obs, action, target=False):
    """Values (E, B) of the library's critics at actions in [-1, 1]."""
    critic = model.critic_target if target else model.critic
    with torch.no_grad():
        found = critic(torch.as_tensor(obs), torch.as_tensor(action))
    if isinstance(found, torch.Tensor):  # TQC: (B, E, quantiles)
        return found.mean(-1).T
    return torch.stack(found)[..., 0]


def our_values(critic, obs, action, key="state"):
    valid = torch.ones(len(obs), 1, dtype=torch.bool)
    with torch.no_grad():
        found = critic(
            {key: torch.as_tensor(obs)[:, None]}, valid, torch.as_tensor(action)[:, None]
        )
    return found[..., 0]


@pytest.mark.parametrize("name", SETTINGS)
def test_it_acts_as_in_its_own_library(name, tmp_path):
    model, path = write_model(tmp_path, name)
    obs = observations()
    theirs = scaled(model.predict(obs, deterministic=True)[0], model.action_space)
    assert theirs.std() > 0.2
    for algorithm in ("sac", "td3"):
        actor = brought_from(path, algorithm, accelerate=FROZEN).actor
        np.testing.assert_allclose(our_actions(actor, obs), theirs, atol=2e-5)
        assert not any(parameter.requires_grad for parameter in actor.parameters())
    learning = brought_from(path, OURS[name])
    assert learning.learns == (name in OFF_POLICY)
    np.testing.assert_allclose(our_actions(learning.actor, obs), theirs, atol=2e-5)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_its_critics_judge_as_in_its_own_library(name, tmp_path):
    model, path = write_model(tmp_path, name)
    brought = brought_from(path, OURS[name])
    obs, action = observations(), np.random.default_rng(1).uniform(-1, 1, (50, 1))
    action = action.astype(np.float32)
    for critic, target in ((brought.critic, False), (brought.critic_target, True)):
        theirs = their_values(model, obs, action, target)
        torch.testing.assert_close(our_values(critic, obs, action), theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(
        our_values(brought.critic, obs, action), our_values(brought.critic_target, obs, action)
    )
    assert brought.critic_target is not None
    assert not any(p.requires_grad for p in brought.critic_target.parameters())
    assert all(p.requires_grad for p in brought.actor.parameters())


@pytest.mark.parametrize("name", ["SAC", "TQC"])
def test_its_distribution_and_temperature_come_along(name, tmp_path):
    model, path = write_model(tmp_path, name)
    brought = brought_from(path)
    obs = torch.as_tensor(observations())
    with torch.no_grad():
        mean, log_std, _ = model.actor.get_action_dist_params(obs)
        output: Any = brought.actor.step({"state": obs}, {})[0]
    torch.testing.assert_close(output.mean, mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.log_std, log_std, rtol=1e-4, atol=1e-4)
    assert log_std.min() < -0.5
    assert brought.alpha == pytest.approx(0.3 if name == "SAC" else 1.0)


def test_a_log_std_far_below_our_own_bound_is_kept(tmp_path):
    model = make_model("SAC")
    with torch.no_grad():
        model.actor.log_std.bias.fill_(-12.0)
        model.actor.log_std.weight.zero_()
    model.save(tmp_path / "sharp.zip")
    actor = brought_from(tmp_path / "sharp").actor
    output: Any = actor.step({"state": torch.zeros(1, 3)}, {})[0]
    assert output.log_std == pytest.approx(-12.0)


@pytest.mark.parametrize("activation", ["Tanh", "ELU", "GELU", "SiLU", "LeakyReLU"])
@pytest.mark.parametrize("name", ["SAC", "PPO"])
def test_other_activations(name, activation, tmp_path):
    settings = {**SETTINGS[name]["policy_kwargs"], "activation_fn": getattr(torch.nn, activation)}
    model = make_model(name, policy_kwargs=settings)
    path = tmp_path / f"{name.lower()}.zip"
    model.save(path)
    brought = brought_from(path)
    obs = observations()
    theirs = scaled(model.predict(obs, deterministic=True)[0], model.action_space)
    np.testing.assert_allclose(our_actions(brought.actor, obs), theirs, atol=2e-5)
    if name == "SAC":
        action = np.zeros((50, 1), np.float32)
        expected = their_values(model, obs, action)
        found = our_values(brought.critic, obs, action)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


class Lopsided(gym.Env):
    """Two action components with bounds that are not symmetric; a matrix of observations."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2, 2))
    action_space = gym.spaces.Box(np.array([-1.0, 2.0], np.float32), np.array([3.0, 2.5]), (2,))

    def reset(self, *, seed=None, options=None):
        return np.zeros((2, 2), np.float32), {}

    def step(self, action):
        return np.zeros((2, 2), np.float32), 0.0, False, True, {}


@pytest.mark.parametrize("name", ["SAC", "TD3", "PPO"])
def test_actions_are_rescaled_from_any_box(name, tmp_path):
    model = make_model(name, Lopsided())
    path = tmp_path / f"{name.lower()}.zip"
    model.save(path)
    config = run_config(f"sb3:{path}", OURS[name], env_id=f"{__name__}:Lopsided")
    brought = bring(config, spec_of(config))
    assert brought is not None
    obs = observations(30, 4)
    theirs = model.predict(obs.reshape(30, 2, 2), deterministic=True)[0]
    assert (theirs >= [-1, 2]).all() and (theirs <= [3, 2.5]).all()
    ours = our_actions(brought.actor, obs)
    np.testing.assert_allclose(ours, scaled(theirs, Lopsided.action_space), atol=2e-5)


def vec_normalized(name, tmp_path, steps=300, **settings):
    """A model trained for a moment behind VecNormalize, saved beside its statistics."""
    dummy = vec_env().DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    env = vec_env().VecNormalize(dummy, clip_obs=1.5, **settings)
    unlearnt: dict[str, Any] = {"learning_starts": steps} if name == "SAC" else {}
    model = make_model(name, env, **unlearnt)
    model.learn(steps)
    path = tmp_path / f"{name.lower()}.zip"
    model.save(path)
    env.save(str(tmp_path / "vecnormalize.pkl"))
    return model, env, path


@pytest.mark.parametrize("name", ["SAC", "PPO"])
def test_statistics_are_found_and_do_as_in_their_own_library(name, tmp_path):
    model, env, path = vec_normalized(name, tmp_path)
    obs = observations()
    normalized = env.normalize_obs(obs)
    assert (np.abs(normalized) == 1.5).any()
    theirs = scaled(model.predict(normalized, deterministic=True)[0], model.action_space)
    brought = brought_from(path)
    assert "normalized by" in brought.about and "vecnormalize.pkl" in brought.about
    np.testing.assert_allclose(our_actions(brought.actor, obs), theirs, atol=1e-4)
    if name == "PPO":
        return
    # Their critics learnt from divided rewards: ours speak of the environment's own.
    scale = float(np.sqrt(env.ret_rms.var + env.epsilon))
    assert scale > 5
    action = np.zeros((50, 1), np.float32)
    expected = scale * their_values(model, normalized, action)
    found = our_values(brought.critic, obs, action)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
    assert brought.alpha == pytest.approx(scale * model.log_ent_coef.exp().item(), rel=1e-4)
    # Actor, critics and targets share what never moves.
    assert brought.critic is not None and brought.critic_target is not None
    shared = brought.actor.inputs.normalizers["state"]
    assert brought.critic.inputs.normalizers["state"] is shared
    assert brought.critic_target.inputs.normalizers["state"] is shared


def test_statistics_lie_where_they_usually_do_or_are_named(tmp_path):
    _, _, path = vec_normalized("PPO", tmp_path, steps=32, norm_reward=False)
    last = tmp_path / "vecnormalize.pkl"
    for place in ("ppo_vecnormalize.pkl", "ppo/vecnormalize.pkl", "vec_normalize.pkl", "mine"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        last = shutil.move(last, tmp_path / place)
        named = {"accelerator_normalize": str(last)} if place == "mine" else {}
        assert brought_from(path, **named).actor.inputs.normalizers
        assert not brought_from(path, accelerator_normalize="none").actor.inputs.normalizers


def test_missing_statistics_are_missed_where_the_file_tells(tmp_path):
    _, _, path = vec_normalized("PPO", tmp_path, steps=32)
    (tmp_path / "vecnormalize.pkl").unlink()
    with pytest.raises(
        SlipstreamError, match=r"with VecNormalize, .*vec_normalize\.pkl; name them"
    ):
        brought_from(path)


def test_statistics_beside_a_model_that_had_none_are_left_alone(tmp_path):
    vec_normalized("PPO", tmp_path, steps=32)
    _, path = write_model(tmp_path, "PPO")
    assert not brought_from(path).actor.inputs.normalizers


def test_rewards_or_observations_may_have_been_left_alone(tmp_path):
    model, env, path = vec_normalized("SAC", tmp_path, norm_obs=False)
    brought = brought_from(path)
    assert not brought.actor.inputs.normalizers
    scale = float(np.sqrt(env.ret_rms.var + env.epsilon))
    assert brought.alpha == pytest.approx(scale * model.log_ent_coef.exp().item(), rel=1e-4)


def test_it_may_see_all_where_the_transformer_does_not(tmp_path):
    """A model for full observations teaches a transformer that sees two of three components."""
    model, path = write_model(tmp_path, "SAC")
    env = replace(tiny().env, observe=ObservationConfig(mask="0-1"))
    fields = {"env": env, "privileged": ("accelerator", "critic")}
    brought = brought_from(path, **fields)
    obs = observations()
    theirs = scaled(model.predict(obs, deterministic=True)[0], model.action_space)
    np.testing.assert_allclose(our_actions(brought.actor, obs, "privileged"), theirs, atol=2e-5)
    assert brought.critic is not None and brought.critic.inputs.keys == ("privileged",)
    with pytest.raises(SlipstreamError, match=r"size 3 .*shows 'state' of size 2"):
        brought_from(path, env=env)
    with pytest.raises(SlipstreamError, match=r"choose --privileged accelerator critic, or --acc"):
        brought_from(path, env=env, privileged=("accelerator",))
    frozen = brought_from(path, env=env, privileged=("accelerator",), accelerate=FROZEN)
    assert frozen.critic is None


def test_only_what_keeps_its_critics_learns(tmp_path):
    _, sac = write_model(tmp_path, "SAC")
    _, td3 = write_model(tmp_path, "TD3")
    _, ppo = write_model(tmp_path, "PPO")
    assert brought_from(sac).learns and brought_from(td3, "td3").learns
    frozen = brought_from(sac, accelerate=FROZEN)
    assert not frozen.learns and frozen.critic is not None  # to be evaluated further
    assert brought_from(td3, accelerate=FROZEN).critic is None  # learnt for another target
    assert brought_from(ppo).critic is None and not brought_from(ppo).learns
    assert describe_brought(brought_from(ppo)).endswith(
        "stays as it is, critics learnt from nothing"
    )
    assert describe_brought(brought_from(sac)).endswith("goes on learning, with its critics")


def test_settings_that_keep_it_from_learning_are_told(tmp_path):
    _, sac = write_model(tmp_path, "SAC")
    with pytest.raises(
        SlipstreamError, match=r"SAC and the run's algorithm is TD3; .*--algorithm sac"
    ):
        brought_from(sac, "td3")
    config = with_gamma(run_config(f"sb3:{sac}"), 0.9)
    with pytest.raises(
        SlipstreamError, match=r"by 0\.99 and .* is 0\.9; .*sac\.gamma 0\.99, or --acc"
    ):
        bring(config, pendulum())
    networks = NetworksConfig(critic=CriticConfig(memory="lstm"))
    with pytest.raises(SlipstreamError, match=r"memory is none and .*memory lstm; leave that out"):
        brought_from(sac, networks=networks)


def damaged(tmp_path, name="SAC", **parts):
    return rewrite(write_model(tmp_path, name)[1], **parts)


def edited(tmp_path, name="SAC", **values):
    """A model whose JSON data says something else."""
    path = write_model(tmp_path, name)[1]
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    return rewrite(path, data=json.dumps({**data, **values}).encode())


def test_files_that_are_no_model_are_told_in_one_line(tmp_path):
    text = tmp_path / "text.zip"
    text.write_text("not a zip")
    half = write_model(tmp_path, "TD3")[1]
    half.write_bytes(half.read_bytes()[:-200])
    flipped = tmp_path / "flipped.zip"
    content = bytearray(saved_model("SAC")[1])
    content[len(content) // 3] ^= 0xFF
    flipped.write_bytes(content)
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("hello.txt", "hello")
    for place, said in (
        (tmp_path / "nonesuch", r"nonesuch does not exist; name the zip file that model\.save\(\)"),
        (tmp_path, r"is a folder; name the zip file"),
        (text, r"text\.zip is no whole zip file .*not a zip file"),
        (half, r"td3\.zip is no (whole zip file|model)"),  # its weights are a whole zip file
        (flipped, r"flipped\.zip is (damaged|no whole zip)"),
        (other, r"it has no 'data'; name the zip file that"),
        (damaged(tmp_path, policy=None), r"it has no 'policy\.pth'"),
        (damaged(tmp_path, data=b"{"), r"no whole zip file with readable data"),
        (damaged(tmp_path, data=b"[]"), r"its data is no JSON object"),
        (damaged(tmp_path, policy=b"rubbish"), r"'policy\.pth' is no plain set of tensors"),
    ):
        with pytest.raises(SlipstreamError, match=said) as error:
            brought_from(place)
        assert "\n" not in str(error.value)


def test_models_that_are_not_supported_are_told_in_one_line(tmp_path):
    images = Shows(gym.spaces.Box(0, 255, (40, 40, 3), np.uint8))
    several = Shows(gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (3,))}))
    models = {
        "image": make_model("SAC", images, "CnnPolicy", policy_kwargs={"net_arch": [8]}),
        "several": make_model("SAC", several, "MultiInputPolicy"),
        "gsde": make_model("SAC", use_sde=True),
        "gsde-ppo": make_model("PPO", use_sde=True),
        "discrete": make_model("PPO", "CartPole-v1"),
        "linear": make_model("SAC", policy_kwargs={"net_arch": []}),
        "dqn": make_model("DQN", "CartPole-v1", buffer_size=10),
        "softplus": make_model("SAC", policy_kwargs={"activation_fn": torch.nn.Softplus}),
    }
    said = {
        "image": "it reads images",
        "several": "its observation space is a Dict",
        "gsde": "it explores with gSDE",
        "gsde-ppo": "it explores with gSDE",
        "discrete": "its action space is a Discrete",
        "linear": "a network of it has no hidden layer|weights",
        "dqn": "its action space is a Discrete",
        "softplus": "its activation is Softplus",
    }
    for name, model in models.items():
        model.save(tmp_path / f"{name}.zip")
        with pytest.raises(SlipstreamError, match=said[name]) as error:
            brought_from(tmp_path / f"{name}.zip")
        assert "supported is an MlpPolicy of SAC" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_recurrent_model_is_refused(tmp_path):
    make_model("RecurrentPPO", policy="MlpLstmPolicy").save(tmp_path / "lstm.zip")
    with pytest.raises(SlipstreamError, match=r"the unknown part lstm_actor"):
        brought_from(tmp_path / "lstm.zip")


def test_spaces_that_differ_are_told_with_both_values(tmp_path):
    _, path = write_model(tmp_path, "SAC")
    config = run_config(f"sb3:{path}", env_id="InvertedPendulum-v5")
    with pytest.raises(
        SlipstreamError, match=r"size 3 .* size 1, but InvertedPendulum-v5 .*size 4"
    ):
        bring(config, spec_of(config))
    wide = replace(pendulum(), action_low=(-3.0,), action_high=(3.0,))
    with pytest.raises(SlipstreamError, match=r"in \[-2, 2\], but Pendulum-v1 .* in \[-3, 3\]"):
        brought_from(path, spec=wide)
    brought_from(path, spec=wide, accelerate=AccelerateConfig(check_env=False))
    twisted = edited(tmp_path, gamma=0.5)
    with pytest.raises(SlipstreamError, match=r"discounted by 0\.5"):
        brought_from(twisted)


def test_statistics_of_another_model_are_told(tmp_path):
    _, _, path = vec_normalized("SAC", tmp_path)
    config = run_config(f"sb3:{path}", accelerator_normalize=str(tmp_path / "none.pkl"))
    with pytest.raises(SlipstreamError, match=r"cannot read .*none\.pkl: No such file"):
        bring(config, pendulum())
