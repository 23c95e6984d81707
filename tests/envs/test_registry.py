"""Ids, functions and what is wrong with them."""

from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from slipstream.envs import registry
from slipstream.envs.making import make_env
from slipstream.envs.mujoco import successor
from slipstream.errors import SlipstreamError


@pytest.mark.parametrize("version", ["v2", "v3", "v4"])
def test_a_superseded_mujoco_id_runs_as_its_successor(version):
    with pytest.warns(UserWarning, match=f"Hopper-{version} is superseded.*Hopper-v5"):
        env = make_env(f"Hopper-{version}")
    assert env.spec.env_id == "Hopper-v5"


def test_every_superseded_mujoco_id_has_a_registered_successor():
    old = [
        i
        for i in gym.registry
        if i.rpartition("-v")[2] == "4" and "mujoco" in str(gym.registry[i].entry_point)
    ]
    assert len(old) == 11
    assert all(successor(env_id) in gym.registry for env_id in old)
    assert successor("Pendulum-v3") is None
    assert successor("Hopper-v5") is None


@pytest.mark.parametrize(
    ("env_id", "suggestion"),
    [
        ("HalfCheeta-v5", "HalfCheetah-v5"),
        ("halfcheetah-v5", "HalfCheetah-v5"),
        ("HalfCheetah-v9", "HalfCheetah-v5"),
        ("Pendulum-v0", "Pendulum-v1"),
        ("Pendulum-v7", "Pendulum-v1"),
        ("slipstream/ProbeMemori-v0", "slipstream/ProbeMemory-v0"),
        ("!!", "package:id"),
        ("", "package:id"),
        ("zzzzzzzz", "no registered id resembles it"),
    ],
)
def test_an_unknown_id_names_the_closest(env_id, suggestion):
    with pytest.raises(SlipstreamError, match=f"unknown environment '{env_id}'") as caught:
        make_env(env_id)
    assert suggestion in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "v4" not in str(caught.value)


def test_an_id_without_version_takes_the_newest():
    with pytest.warns(UserWarning, match="Pendulum-v1"):
        assert make_env("Pendulum").spec.env_id == "Pendulum-v1"


def test_a_package_that_registers_ids_is_imported():
    with pytest.raises(SlipstreamError, match=r"no_such_package.*pip install"):
        make_env("no_such_package:Thing-v0")
    env = make_env("slipstream.envs.probe:slipstream/ProbeConstant-v0")
    assert env.spec.env_id == "slipstream.envs.probe:slipstream/ProbeConstant-v0"


def _raise(error):
    def make(**kwargs):
        raise error

    return make


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'sim'", name="sim"), "pip install.*'sim'"),
        (gym.error.DependencyNotInstalled("run\n`pip install sim`"), "run `pip install sim`$"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, error, message):
    spec = EnvSpec("Thing-v0", _raise(error))
    monkeypatch.setitem(gym.registry, "Thing-v0", spec)
    with pytest.raises(SlipstreamError, match=message):
        make_env("Thing-v0")


def test_a_missing_mujoco_names_the_extra(monkeypatch):
    error = ModuleNotFoundError("No module named 'mujoco'", name="mujoco")
    monkeypatch.setattr(registry.gym, "make", lambda *_, **__: _raise(error)())
    with pytest.raises(SlipstreamError, match=r'pip install "gymnasium\[mujoco\]"'):
        make_env("Hopper-v5")


def test_env_kwargs_are_passed_and_named_when_wrong():
    env = make_env("slipstream/ProbeMemory-v0", env_kwargs={"delay": 7})
    env.reset(seed=0)
    lengths = [e.length for _ in range(8) for e in env.step(np.zeros((1, 1))).episodes]
    assert lengths == [8]
    with pytest.raises(SlipstreamError, match=r"cannot be made with \{'dela': 7\}"):
        make_env("slipstream/ProbeMemory-v0", env_kwargs={"dela": 7})
    with pytest.raises(SlipstreamError, match=r"env_kwargs .* are for an id only"):
        make_env(lambda: gym.make("Pendulum-v1"), env_kwargs={"g": 1})


@pytest.mark.parametrize("num_envs", [0, -3])
def test_num_envs_must_be_positive(num_envs):
    with pytest.raises(SlipstreamError, match=f"num_envs must be at least 1, got {num_envs}"):
        make_env("Pendulum-v1", num_envs=num_envs)


def test_num_envs_must_fit_what_is_given():
    def make():
        return gym.make("Pendulum-v1")

    assert make_env([make, make]).num_envs == 2
    assert make_env(make, num_envs=2).num_envs == 2
    with pytest.raises(SlipstreamError, match="num_envs is 3, but there are 2 functions"):
        make_env([make, make], num_envs=3)
    with pytest.raises(SlipstreamError, match="there are 0 functions"):
        make_env([])
    vector = gym.vector.SyncVectorEnv([make, make])
    assert make_env(vector, num_envs=2).num_envs == 2
    with pytest.raises(SlipstreamError, match="num_envs is 3, but the vector environment holds 2"):
        make_env(vector, num_envs=3)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: 1, r"returned int: it must return a gymnasium\.Env"),
        (3, "cannot make an environment of int"),
        (gym.make("Pendulum-v1"), "cannot make an environment of .*: give an id, a function"),
    ],
)
def test_what_is_no_env_is_refused(env, message):
    with pytest.raises(SlipstreamError, match=message):
        make_env(cast("Any", env))
