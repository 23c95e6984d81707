"""Runs in which something is hidden, and somebody sees it."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from safetensors.torch import load_file

import slipstream
from slipstream.checkpoint import resolve
from slipstream.checkpoint.tree import load_tree
from slipstream.cli import main
from slipstream.config import RunConfig, team_config
from slipstream.envs.observation import ObservationConfig
from slipstream.envs.setup import EnvConfig
from slipstream.networks.cnn import CNNConfig
from slipstream.policies.policy import load_policy
from slipstream.presets import PRESETS, preset
from slipstream.spec import ArraySpec, EnvSpec
from slipstream.training import train
from tests.tiny_runs import lines, tiny

HIDDEN = EnvConfig(observe=ObservationConfig(mask="0,1"), normalize_obs=True, max_episode_steps=20)


def test_privileged_observations_never_reach_the_saved_policy(tmp_path):
    config = tiny(env=HIDDEN, privileged=("accelerator", "critic"))
    run_dir = train(config, tmp_path / "run", show_progress=False)
    networks = load_tree(resolve(run_dir) / "training_state")["team"]["networks"]
    assert networks["accelerator"]["inputs.normalizers.privileged.mean"].shape == (3,)
    assert networks["critic"]["inputs.normalizers.privileged.mean"].shape == (3,)
    folder = resolve(run_dir) / "policy"
    assert not [name for name in load_file(folder / "model.safetensors") if "privileged" in name]
    assert "privileged" not in (folder / "config.json").read_text()
    policy = load_policy(run_dir)
    assert list(policy.spec.obs) == ["state", "state.difference"]
    assert {value.shape for value in policy.spec.obs.values()} == {(2,)}
    env = policy.open_env(2)
    assert list(env.reset(0)) == ["state", "state.difference"]
    env.close()


class Guided(gym.Env):
    """A target between -1 and 1: told to the privileged, seen as a noisy number or a grey image."""

    def __init__(self, image=False):
        seen = (
            gym.spaces.Box(0, 255, (12, 12, 1), np.uint8) if image else gym.spaces.Box(-9, 9, (2,))
        )
        target = gym.spaces.Box(-1, 1, (1,))
        self.observation_space = gym.spaces.Dict(state=seen, privileged=target)
        self.action_space = gym.spaces.Box(-1, 1, (1,))
        self.image = image

    def show(self):
        noisy = self.target + 0.1 * self.np_random.normal()
        state = np.array([noisy, self.t], np.float32)
        if self.image:
            state = np.full((12, 12, 1), np.clip(127 + 100 * noisy, 0, 255), np.uint8)
        return {"state": state, "privileged": np.array([self.target], np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.target, self.t = self.np_random.uniform(-1, 1), 0
        return self.show(), {}

    def step(self, action):
        self.t += 1
        return self.show(), -abs(float(action[0]) - self.target), False, self.t == 9, {}


def guided_by_images():
    return Guided(image=True)


@pytest.mark.parametrize("name", ["Guided", "guided_by_images"])
def test_an_environment_of_ones_own_says_what_is_privileged(tmp_path, name):
    networks = replace(tiny().networks, cnn=CNNConfig((4,), (4,), (4,), embed_size=6))
    config = tiny(
        env_id=f"{__name__}:{name}",
        env=EnvConfig(normalize_obs=True, observe=ObservationConfig(delay=1)),
        networks=networks,
        privileged=("accelerator", "critic"),
    )
    run_dir = slipstream.train(config, run_dir=tmp_path / "run", show_progress=False)
    team = load_tree(resolve(run_dir) / "training_state")["team"]
    networks = team["networks"]
    for reader in ("accelerator", "critic"):
        assert networks[reader]["inputs.normalizers.privileged.mean"].shape == (1,)
    policy = load_policy(run_dir)
    assert list(policy.spec.obs) == ["state"]
    assert "privileged" not in (resolve(run_dir) / "policy/config.json").read_text()
    action = policy.predict(
        np.zeros(policy.spec.obs["state"].shape, policy.spec.obs["state"].dtype)
    )
    assert np.isfinite(action[0]).all()


def dotted():
    """The same with names as other simulators give them."""
    env = Guided()
    env.observation_space = gym.spaces.Dict({"agent.pos": gym.spaces.Box(-9, 9, (2,))})
    show = env.show
    env.show = lambda: {"agent.pos": show()["state"]}
    return env


def test_keys_may_have_dots(tmp_path):
    env_id = f"{__name__}:dotted"
    config = tiny(env_id=env_id, env=EnvConfig(normalize_obs=True), total_steps=120)
    run_dir = train(config, tmp_path / "run", show_progress=False)
    policy = load_policy(run_dir)
    assert list(policy.spec.obs) == ["agent.pos"]
    assert policy.actor.inputs.normalizers["agent.pos"].state_dict()["count"] > 100
    goes_on = replace(config, accelerator=f"slipstream:{run_dir}", total_steps=60)
    train(goes_on, tmp_path / "further", show_progress=False)


@pytest.mark.parametrize(("obs", "stack"), [("rgb", 3), ("state", 1)])
def test_what_came_before_does_not_tell_what_an_image_hides(obs, stack):
    shown = {"rgb": ArraySpec((8, 8, 3), "uint8")} if obs == "rgb" else {"state": ArraySpec((2,))}
    previous = {"prev_action": ArraySpec((1,)), "prev_reward": ArraySpec((1,))}
    networks = tiny().fitted(EnvSpec("it", shown | previous, (-1.0,), (1.0,))).built_networks
    assert (networks.mlp.frame_stack, networks.critic.frame_stack) == (stack, stack)


def test_what_nobody_may_read_is_said_once(tmp_path, capsys):
    config = tiny(env_id=f"{__name__}:Guided", env=EnvConfig(), total_steps=40, stages=("online",))
    train(config, tmp_path / "run", show_progress=True)
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("shows 'privileged', which nobody reads") == 1
    assert list(load_policy(tmp_path / "run").spec.obs) == ["state"]


def test_differences_are_normalized_for_whoever_sees_what_the_policy_sees(tmp_path):
    env = replace(HIDDEN, normalize_obs=False)
    config = tiny(env=env, privileged=("accelerator",), total_steps=120)
    run_dir = train(config, tmp_path / "run", show_progress=False)
    networks = load_tree(resolve(run_dir) / "training_state")["team"]["networks"]
    for name, keys in (
        ("transformer", {"state%2Edifference"}),
        ("critic", {"state%2Edifference"}),
        ("accelerator", set()),
    ):
        normalized = {key.split(".")[2] for key in networks[name] if ".normalizers." in key}
        assert normalized == keys, name
    policy = load_policy(run_dir)
    assert list(policy.spec.obs) == ["state", "state.difference"]
    found = policy.actor.inputs.normalizers["state.difference"].state_dict()
    assert found["count"] > 100 and (found["var"] < 0.1).all()
    goes_on = replace(config, accelerator=f"slipstream:{run_dir}", privileged=(), total_steps=60)
    train(goes_on, tmp_path / "further", show_progress=False)


def test_the_imitation_gap_is_logged(tmp_path):
    run_dir = train(tiny(env=HIDDEN, privileged=("accelerator",)), tmp_path, show_progress=False)
    assert any("clone/burst_end_error" in line for line in lines(run_dir))
    told = [line for line in lines(run_dir) if "switch/imitation_gap" in line]
    for line in told:
        assert line["stage"] == "accelerate"
    returns = {
        name: next(
            line[f"eval/{name}/return"]
            for line in reversed(lines(run_dir))
            if line["stage"] == "accelerate" and f"eval/{name}/return" in line
        )
        for name in ("random", "accelerator", "transformer")
    }
    rise = returns["accelerator"] - returns["random"]
    if rise > 0:
        missing = returns["accelerator"] - returns["transformer"]
        assert told[-1]["switch/imitation_gap"] == pytest.approx(missing / rise)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (1, 1)),
        ({"env": HIDDEN}, (3, 3)),
        ({"env": HIDDEN, "privileged": ("accelerator",)}, (1, 3)),
        ({"env": HIDDEN, "privileged": ("critic",)}, (3, 1)),
        ({"env": HIDDEN, "privileged": ("accelerator",), "transformer": "mlp"}, (3, 3)),
        ({"env": EnvConfig(observe=ObservationConfig(noise=0.1))}, (3, 3)),
    ],
)
def test_who_is_kept_in_the_dark_looks_at_several_frames(fields, expected):
    networks = team_config(RunConfig("Pendulum-v1", **fields)).networks
    assert (networks.mlp.frame_stack, networks.critic.frame_stack) == expected


def test_a_chosen_stack_stays():
    config = tiny(env=HIDDEN)
    networks = replace(config.networks, mlp=replace(config.networks.mlp, frame_stack=2))
    assert replace(config, networks=networks).built_networks.mlp.frame_stack == 2


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_recurrent_accelerators_and_critics_train(kind, algorithm, tmp_path):
    config = tiny(algorithm=algorithm, accelerator=kind, total_steps=120, env=HIDDEN)
    critic = replace(config.networks.critic, memory=kind)
    config = replace(config, networks=replace(config.networks, critic=critic))
    run_dir = train(config, tmp_path, show_progress=False)
    losses = [line["train/critic_loss"] for line in lines(run_dir) if "train/critic_loss" in line]
    assert losses and all(0 <= loss < 1e4 for loss in losses)


def test_a_student_may_be_recurrent(tmp_path):
    run_dir = train(tiny(transformer="gru", env=HIDDEN), tmp_path, show_progress=False)
    assert load_policy(run_dir).actor.loss_steps == 6


def test_the_flags_of_the_command_line(tmp_path, capsys):
    arguments = ["train", "HalfCheetah-v5", "--mask", "positions", "--accelerator", "lstm"]
    assert main([*arguments, "--privileged", "critic", "--dry-run"]) == 0
    assert "'state': (8,)" in capsys.readouterr().out
    assert main(["train", "HalfCheetah-v5", "--mask", "0-3,40", "--dry-run"]) == 2
    assert "40" in capsys.readouterr().err
    assert main(["train", "Pendulum-v1", "--mask", "positions", "--dry-run"]) == 2
    assert "positions" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pomdp", "lstm", "privileged", "memory-probe", "paper/pomdp-td3"])
def test_the_presets_hide_what_they_say(name):
    assert name in PRESETS
    config = preset(name, "Hopper-v5")
    assert config.env.observe.hides or name == "memory-probe"
    assert config.kinds["accelerator"] in {
        "pomdp": ("mlp",),
        "privileged": ("mlp",),
        "memory-probe": ("gru",),
    }.get(name, ("lstm",))
