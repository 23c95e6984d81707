"""A user's own environment by its import path, from training to evaluation and resume."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from slipstream.cli import main
from slipstream.config import EnvConfig, to_yaml
from slipstream.envs.making import make_env
from slipstream.envs.setup import open_env
from slipstream.errors import SlipstreamError
from slipstream.policies.policy import load_policy
from tests.tiny_runs import timeless, tiny

MODULE = '''
import gymnasium as gym
import numpy as np


class Pointer(gym.Env):
    """A point on a line that starts anywhere; the reward is its closeness to the origin."""

    def __init__(self, force=1.0):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
        self.action_space = gym.spaces.Box(-3.0, 3.0, (1,))
        self.force = force

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v = self.np_random.uniform(-1, 1, 2)
        return np.array([self.x, self.v], np.float32), {}

    def step(self, action):
        self.v += 0.1 * self.force * float(action[0]) + 0.01 * self.np_random.normal()
        self.x += 0.1 * self.v
        return np.array([self.x, self.v], np.float32), -self.x**2, False, False, {}


def make(**kwargs):
    return gym.wrappers.TimeLimit(Pointer(**kwargs), 25)


def endless():
    return Pointer()


def make_number():
    return 3


number = 3
gym.register("OwnRegistered-v0", Pointer, max_episode_steps=5)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in with a user's package, found because it is the working folder."""
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "envs.py").write_text(MODULE)
    (package / "broken.py").write_text("import slipstream.no_such_part\n")
    (package / "wrong.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_package"]:
        del sys.modules[name]
    gym.registry.pop("OwnRegistered-v0", None)


def test_it_goes_by_its_path_and_keeps_its_limit(folder):
    env = make_env("own_package.envs:make", num_envs=2)
    assert env.spec.env_id == "own_package.envs:make" and env.spec.max_episode_steps == 25
    assert env.spec.obs["state"].shape == (2,) and env.spec.action_high == (3.0,)
    env.reset(seed=0)
    assert [env.step(np.zeros((2, 1))).truncated.all() for _ in range(25)][-2:] == [False, True]


@pytest.mark.parametrize("name", ["make", "endless", "Pointer"])
def test_a_limit_takes_the_place_of_its_own(folder, name):
    for limit in (7, 40):
        env = open_env(f"own_package.envs:{name}", EnvConfig(max_episode_steps=limit), 1)
        assert env.spec.max_episode_steps == limit
        env.reset(seed=0)
        lengths = [e.length for _ in range(limit) for e in env.step(np.zeros((1, 1))).episodes]
        assert lengths == [limit]


def test_it_is_handed_its_arguments(folder):
    config = EnvConfig(kwargs={"force": 0.0})
    env = open_env("own_package.envs:make", config, 1)
    obs = env.reset(seed=0)["state"].copy()
    assert abs(env.step(np.ones((1, 1))).obs["state"] - obs)[0, 1] < 0.1
    with pytest.raises(SlipstreamError, match=r"envs:make cannot be made with \{'mass': 1\}"):
        open_env("own_package.envs:make", EnvConfig(kwargs={"mass": 1}), 1)


def test_ids_of_gymnasium_stay_ids(folder):
    for env_id in ("own_package.envs:OwnRegistered-v0", "own_package.envs:OwnRegistered"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gym.logger, "min_level", gym.logger.ERROR)
            env = make_env(env_id)
            # With the module, or nobody could open it again.
            assert (env.spec.env_id, env.spec.max_episode_steps) == (env_id, 5)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no_such_package:make", r"no module 'no_such_package'.*pip install it, or start from"),
        ("own_package.none:make", r"no module 'own_package\.none'"),
        ("own_package.envs:mak", r"own_package\.envs has no 'mak'; did you mean make"),
        ("own_package.envs:Pointer.fly", r"Pointer has no 'fly'"),
        ("own_package.envs:number", r"envs:number is a int, not a function"),
        ("own_package.envs:make_number", r"make_number returned int; it must return a gymnasium"),
        ("own_package.broken:make", r"needs the module 'slipstream\.no_such_part'"),
        ("own_package.wrong:make", r"failed with ZeroDivisionError: division by zero"),
    ],
)
def test_what_does_not_lie_there_is_told_in_one_line(folder, path, said):
    with pytest.raises(SlipstreamError, match=said) as error:
        make_env(path)
    assert "\n" not in str(error.value)


def test_train_evaluate_and_resume(folder, capsys):
    config = tiny(env_id="own_package.envs:make", env=EnvConfig(kwargs={"force": 2}))
    Path("tiny.yaml").write_text(to_yaml(config))
    train = ["train", config.env_id, "--config", "tiny.yaml", "--quiet", "--run-dir"]
    assert main([*train, "whole"]) == 0
    assert main(["evaluate", "whole", "--episodes", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["lengths"] == [25, 25]  # its own limit
    policy = load_policy("whole")
    assert policy.spec.env_id == "own_package.envs:make" and policy.env.kwargs == {"force": 2}

    # From the middle of an episode and of stage 2: the same log, to the last figure.
    checkpoints = sorted(int(p.name) for p in Path("whole/checkpoints").glob("[0-9]*"))
    assert main(["resume", f"whole/checkpoints/{checkpoints[-2]}", "--quiet"]) == 0
    resumed = timeless(Path("whole"))
    assert main([*train, "again"]) == 0
    assert resumed == timeless(Path("again"))
    assert not any("could not be restored" in str(line) for line in resumed)


def test_a_script_names_its_own_function_by_main(tmp_path):
    script = (
        "import sys, gymnasium, slipstream\n"
        "from tests.tiny_runs import tiny\n"
        "def make():\n"
        "    return gymnasium.make('Pendulum-v1', max_episode_steps=20)\n"
        "run = slipstream.train(tiny(env_id='__main__:make'), sys.argv[1], show_progress=False)\n"
        "print(list(slipstream.evaluate(run, episodes=2).lengths))\n"
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[20, 20]\n"
