import json
from dataclasses import replace

import pytest
import yaml

from slipstream.config import EnvConfig, EvalConfig, RunConfig, from_dict, load, to_dict, to_yaml
from slipstream.errors import SlipstreamError
from slipstream.networks import NetworksConfig
from slipstream.networks.mlp import MLPConfig
from slipstream.networks.transformer import TransformerConfig
from slipstream.presets import PRESETS, preset
from slipstream.spec import ArraySpec, EnvSpec
from slipstream.stages.accelerate import AccelerateConfig
from slipstream.stages.imitation import CloningConfig
from slipstream.stages.online import OnlineConfig


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_yaml_and_json(name, tmp_path):
    config = preset(name, "HalfCheetah-v5")
    assert config.preset == name and config.env_id == "HalfCheetah-v5"
    assert from_dict(yaml.safe_load(to_yaml(config))) == config
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    assert load(path) == config


def test_what_is_left_out_keeps_its_default():
    config = from_dict({"env_id": "Pendulum-v1", "networks": {"transformer": {"d_model": 32}}})
    expected = NetworksConfig(transformer=TransformerConfig(d_model=32))
    assert config == RunConfig("Pendulum-v1", networks=expected)


def test_whole_numbers_do_for_floats():
    assert from_dict({"env_id": "x", "utd_ratio": 2}).utd_ratio == 2.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nonesuch": 1}, "nonesuch"),
        ({"algorithms": {"sac": {"tua": 0.1}}}, r"tua.*algorithms\.sac"),
        ({"total_steps": "many"}, r"'many'.*total_steps"),
        ({"total_steps": 1.5}, r"1\.5.*total_steps"),
        ({"total_steps": True}, r"True.*total_steps"),
        ({"tensorboard": "yes"}, r"'yes'.*tensorboard"),
        ({"switch": {"rule": "never"}}, "never"),
        ({"stages": ["offline"]}, "offline"),
        ({"networks": 3}, "networks"),
        ({"networks": {"mlp": {"hidden": [64, "x"]}}}, "'x'"),
        ({"seed": None}, "None"),
        ({"seed": -1}, "seed is -1"),
        ({"networks": {"transformer": {"n_heads": 3}}}, "n_heads 3"),
        ({"algorithms": {"td3": {"gamma": 1.0}}}, r"td3\.gamma is 1\.0"),
    ],
)
def test_wrong_fields_and_types_are_named(values, said):
    with pytest.raises(SlipstreamError, match=said) as error:
        from_dict({"env_id": "x", **values}, "mine.yaml")
    assert str(error.value).startswith("mine.yaml: ") and "\n" not in str(error.value)


def test_the_environment_is_needed():
    with pytest.raises(SlipstreamError, match="env_id"):
        from_dict({})


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [1", "not YAML"), ("- 1\n- 2\n", "no configuration"), ("", "no configuration")],
)
def test_what_is_no_yaml_is_refused(text, said, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SlipstreamError, match=said) as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(SlipstreamError, match="No such file"):
        load(tmp_path / "nonesuch.yaml")
    with pytest.raises(SlipstreamError, match="directory"):
        load(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SlipstreamError, match="not YAML"):
        load(binary)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total_steps", 0),
        ("total_steps", -5),
        ("batch_size", 0),
        ("log_every", 0),
        ("checkpoint_every", -1),
        ("keep_checkpoints", 0),
        ("num_threads", 0),
        ("seed", -1),
        ("learning_starts", -1),
        ("utd_ratio", -0.5),
        ("utd_ratio", float("nan")),
        ("algorithm", "ppo"),
        ("accelerator", "gpt"),
        ("transformer", "gpt"),
        ("stages", ()),
        ("stages", ("online", "accelerate")),
    ],
)
def test_impossible_runs_are_refused(name, value):
    with pytest.raises(SlipstreamError) as error:
        replace(RunConfig("x"), **{name: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (EnvConfig, "num_envs", 0),
        (EnvConfig, "num_envs", -2),
        (EnvConfig, "max_episode_steps", 0),
        (EvalConfig, "every", 0),
        (EvalConfig, "episodes", -1),
        (AccelerateConfig, "replay_capacity", 1),
        (OnlineConfig, "replay_capacity", -5),
    ],
)
def test_impossible_parts_are_refused(kind, name, value):
    with pytest.raises(SlipstreamError, match=f"{name} is {value}"):
        kind(**{name: value})


def test_a_context_longer_than_the_replay_is_refused():
    networks = NetworksConfig(transformer=TransformerConfig(context_length=10))
    with pytest.raises(SlipstreamError, match=r"context_length 10.*'online', 10 rows.* 11 "):
        RunConfig("x", batch_size=8, networks=networks, online=OnlineConfig(replay_capacity=10))
    RunConfig("x", batch_size=8, networks=networks, online=OnlineConfig(replay_capacity=11))
    with pytest.raises(SlipstreamError, match=r"'online', 10 rows.* 44 "):
        RunConfig(
            "x",
            batch_size=8,
            env=EnvConfig(num_envs=4),
            networks=networks,
            online=OnlineConfig(replay_capacity=43),
        )
    # A stage that is left out needs no room.
    RunConfig(
        "x",
        stages=("accelerate",),
        networks=networks,
        online=OnlineConfig(replay_capacity=5),
    )


def test_a_replay_that_never_holds_a_batch_is_refused():
    small = AccelerateConfig(replay_capacity=100)
    with pytest.raises(SlipstreamError, match=r"accelerate\.replay_capacity is 100.* 128.* 129 "):
        RunConfig("x", accelerate=small)
    with pytest.raises(SlipstreamError, match=r"accelerate\.replay_capacity is 100.* 104 "):
        RunConfig("x", batch_size=99, env=EnvConfig(num_envs=4), accelerate=small)
    RunConfig("x", batch_size=99, accelerate=small)
    # Where nothing is to be learnt, none is needed.
    RunConfig("x", utd_ratio=0.0, accelerate=small)
    with pytest.raises(SlipstreamError, match=r"online\.replay_capacity is 100"):
        RunConfig("x", utd_ratio=0.0, online=OnlineConfig(replay_capacity=100, utd_ratio=1.0))


def test_a_run_that_ends_before_its_first_update_is_refused():
    with pytest.raises(SlipstreamError, match=r"learning_starts is 500 and total_steps 500"):
        RunConfig("x", total_steps=500, learning_starts=500)
    RunConfig("x", total_steps=501, learning_starts=500)
    RunConfig("x", total_steps=500, learning_starts=500, utd_ratio=0.0)


def test_two_stages_need_the_clone():
    off = CloningConfig(enabled=False)
    with pytest.raises(SlipstreamError, match=r"cloning\.enabled"):
        RunConfig("x", cloning=off)
    RunConfig("x", stages=("online",), cloning=off)


def test_an_unknown_preset_is_refused():
    with pytest.raises(SlipstreamError, match=r"'mine'.*default.*paper/mdp-td3"):
        preset("mine", "x")


def test_the_papers_presets_keep_the_papers_numbers():
    config = preset("paper/mdp-td3", "Hopper-v5")
    td3, transformer = config.algorithms.td3, config.networks.transformer
    assert (td3.gamma, td3.tau, td3.policy_delay) == (0.99, 0.005, 2)
    assert (td3.target_policy_noise, td3.target_noise_clip, td3.exploration_noise) == (
        0.2,
        0.5,
        0.1,
    )
    assert (td3.actor_lr, td3.critic_lr, config.batch_size) == (3e-4, 3e-4, 256)
    assert config.networks.mlp.hidden == config.networks.critic.hidden == (256, 256, 256)
    assert (transformer.context_length, transformer.n_layers, transformer.n_heads) == (3, 1, 2)
    assert (transformer.d_model, transformer.d_ff, transformer.dropout) == (256, 512, 0.05)
    assert (config.learning_starts, config.online.replay_capacity) == (25_000, 20_000)
    assert (config.cloning.source, config.cloning.episodes, config.cloning.episodes_every) == (
        "episodes",
        10,
        3_000,
    )
    assert preset("paper/mdp-sac", "Hopper-v5").algorithm == "sac"

    config = preset("paper/image-sac", "PushCube-v1")
    sac, cnn, transformer = config.algorithms.sac, config.networks.cnn, config.networks.transformer
    assert (config.algorithm, sac.gamma, sac.tau) == ("sac", 0.8, 0.01)
    assert (config.batch_size, config.utd_ratio, config.env.num_envs) == (512, 0.25, 16)
    assert (cnn.channels, cnn.kernels) == ((16, 32, 64, 64, 64), (3, 3, 3, 3, 1))
    assert (transformer.n_layers, transformer.n_heads, transformer.d_model) == (1, 2, 256)


def test_an_environment_of_images_alone_is_seen_three_at_a_time():
    """One image tells no velocity. A state beside it does, and so does what is asked for."""
    image, state = ArraySpec((8, 8, 3), "uint8"), ArraySpec((2,))

    def stacks(config: RunConfig, obs: dict[str, ArraySpec]) -> tuple[int | None, int | None]:
        spec = EnvSpec("x", obs, (-1.0,), (1.0,))
        networks = config.fitted(spec).built_networks
        return networks.mlp.frame_stack, networks.critic.frame_stack

    config = RunConfig("x")
    assert stacks(config, {"rgb": image}) == (3, 3)
    assert stacks(config, {"rgb": image, "state": state}) == (1, 1)
    assert stacks(config, {"state": state}) == (1, 1)
    chosen = replace(config.networks, mlp=MLPConfig(frame_stack=2))
    assert stacks(replace(config, networks=chosen), {"rgb": image}) == (2, 3)
    privileged = replace(config, privileged=("accelerator", "critic"))
    assert stacks(privileged, {"rgb": image, "privileged": state}) == (1, 1)
