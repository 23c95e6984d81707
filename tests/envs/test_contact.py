"""Environments that break gymnasium's contract are told so, in its words, at the first call."""

# pyright: reportIncompatibleMethodOverride=false

import gymnasium as gym
import numpy as np
import pytest

from slipstream.cli import main
from slipstream.envs.contact import FirstContact
from slipstream.envs.making import make_env
from slipstream.errors import SlipstreamError

BOX = gym.spaces.Box(-1, 1, (3,), np.float32)
ZEROS = np.zeros(3, np.float32)


class Sound(gym.Env):
    observation_space = BOX
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return ZEROS, {}

    def step(self, action):
        return ZEROS, 0.0, False, True, {}


class OldStep(Sound):
    def step(self, action):
        return ZEROS, 0.0, False, {}


class OldReset(Sound):
    def reset(self, *, seed=None, options=None):
        return ZEROS


class NoSeed(Sound):
    def reset(self):
        return ZEROS, {}


class WideReset(Sound):
    def reset(self, *, seed=None, options=None):
        return np.zeros((3, 1), np.float32), {}


class WideStep(Sound):
    def step(self, action):
        return np.zeros(4, np.float32), 0.0, False, True, {}


class FloatImage(Sound):
    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        return np.zeros((8, 8, 3), np.float32), {}


class NoReward(Sound):
    def step(self, action):
        return ZEROS, None, False, True, {}


class NoKey(Sound):
    observation_space = gym.spaces.Dict(a=BOX, b=BOX)

    def reset(self, *, seed=None, options=None):
        return {"a": ZEROS}, {}


class WideKey(NoKey):
    def reset(self, *, seed=None, options=None):
        return {"a": ZEROS, "b": np.zeros(4, np.float32)}, {}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (OldStep, r"OldStep: step\(\) returned 4 values, but step\(action\) returns"),
        (
            lambda: gym.wrappers.TimeLimit(OldStep(), 5),
            r"OldStep: step\(\) failed: not enough values to unpack",
        ),
        (OldReset, r"OldReset: reset\(\) returned one ndarray, but reset"),
        (NoSeed, r"NoSeed: reset\(\) failed: .*unexpected keyword argument 'seed'"),
        (WideReset, r"reset\(\) returned an observation of shape \(3, 1\), but .* says \(3,\)"),
        (WideStep, r"step\(\) returned an observation of shape \(4,\), but .* says \(3,\)"),
        (FloatImage, r"reset\(\) returned an observation of float32, but .* says uint8"),
        (NoReward, r"step\(\) returned the reward None"),
        (NoKey, r"reset\(\) returned the observation \['a'\], but .* keys \['a', 'b'\]"),
        (WideKey, r"reset\(\) returned an observation 'b' of shape \(4,\), but .* says \(3,\)"),
    ],
)
def test_what_breaks_the_contract_is_named(make, said):
    env = make_env(make)
    with pytest.raises(SlipstreamError, match=said):
        env.reset(0)
        env.step(np.zeros((1, 1), np.float32))


def test_after_the_first_step_it_stands_aside():
    inner = Sound()
    env = FirstContact(inner, "Sound")
    env.reset(seed=0)
    env.step(ZEROS[:1])
    assert env.reset == inner.reset
    assert env.step == inner.step


def test_an_error_of_the_environment_itself_stays_its_own():
    class Broken(Sound):
        def step(self, action):
            raise ValueError("the motor is hot")

    env = make_env(Broken)
    env.reset(0)
    with pytest.raises(ValueError, match="the motor is hot"):
        env.step(np.zeros((1, 1), np.float32))


def failing():
    raise ValueError("no such file")


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("failing", (), "cannot be made with no arguments: ValueError: no such file ("),
        ("Sound", ("--obs", "rgb"), "has no images"),
        ("Sound", ("--video",), "has no images"),
    ],
)
def test_the_command_says_it_in_one_line_before_it_trains(name, flags, said, tmp_path, capsys):
    arguments = ["train", f"{__name__}:{name}", *flags, "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "run").exists()
