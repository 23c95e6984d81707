"""What presets choose for an environment, and that a user's flags win."""

import shlex
from dataclasses import replace

import pytest
import yaml

from slipstream.cli import main
from slipstream.presets import CHOICES, PRESETS, preset
from slipstream.presets.manipulation import picked, suited


@pytest.mark.parametrize("name", ["default", "td3", "scratch", "accelerator", "cnn", "quick"])
def test_manipulation_gets_settings_of_its_own(name):
    config = preset(name, "PushCube-v1")
    assert config.utd_ratio == 0.25 and config.env.normalize_obs
    assert config.env.kwargs == {"control_mode": "pd_ee_delta_pos"}
    sac, td3 = config.algorithms.sac, config.algorithms.td3
    assert (sac.gamma, sac.tau, sac.alpha, td3.gamma, td3.tau) == (0.8, 0.01, 0.02, 0.8, 0.01)
    assert preset(name, "PegInsertionSide-v1").env.normalize_obs


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "MS-HopperStand-v1", "my_pkg.envs:make"])
@pytest.mark.parametrize("name", ["default", "scratch", "accelerator", "cnn"])
def test_control_does_not(name, env_id):
    config = preset(name, env_id)
    assert suited(config) == config and picked(config) == ""
    assert config.algorithms.sac.gamma == 0.99 and not config.env.normalize_obs
    assert replace(config, env_id="HalfCheetah-v5") == preset(name, "HalfCheetah-v5")


def test_flags_win_over_what_is_picked(capsys):
    arguments = ["PullCube-v1", "--utd-ratio", "1", "--env.no-normalize-obs", "--print-config"]
    assert main(["train", *arguments]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["utd_ratio"] == 1.0 and not values["env"]["normalize_obs"]
    assert values["algorithms"]["sac"]["gamma"] == 0.8


def test_what_is_picked_is_told():
    config = preset("default", "PullCube-v1")
    assert picked(replace(config, utd_ratio=1.0)) == (
        "env.normalize_obs True, env.kwargs.control_mode pd_ee_delta_pos, "
        "algorithms.sac.gamma 0.8, algorithms.sac.tau 0.01, algorithms.sac.alpha 0.02"
    )
    told = picked(replace(config, algorithm="td3"))
    assert "td3.gamma 0.8" in told and "sac" not in told


@pytest.mark.parametrize("flags", CHOICES)
def test_every_choice_is_a_flag(flags, capsys):
    assert main(["train", "Hopper-v5", *shlex.split(flags), "--print-config"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    main(["train", "Hopper-v5", "--print-config"])
    assert yaml.safe_load(capsys.readouterr().out) != values


def test_the_papers_policies_are_shown_no_differences():
    shown = {name: preset(name, "Hopper-v5").env.added["differences"] for name in PRESETS}
    assert shown["pomdp"] and shown["lstm"] and shown["privileged"]
    assert not any(value for name, value in shown.items() if name.startswith("paper/"))
    assert not shown["default"]
