"""From a model of Stable-Baselines3 to a file that acts without torch, in about a minute.

    python examples/sb3_to_onnx.py [--out runs/sb3-to-onnx] [--steps 4000]

A small SAC of Stable-Baselines3 learns Pendulum-v1, goes on as the accelerator of a transformer,
which learns on its own and is exported to ONNX. A virtual environment with numpy and onnxruntime
alone then runs the exported folder, and what it does is held against the policy itself.

Needs the packages of `make setup-examples`.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import gymnasium
import numpy as np

import slipstream
from slipstream.policies.policy import Policy

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-5  # of the action's range of [-1, 1]
EPISODES = 5

# Runs in the bare environment: a line of JSON is an observation, or null where an episode begins.
ACT = """
import importlib.util, json, sys
missing = [each for each in ("torch", "slipstream") if importlib.util.find_spec(each) is None]
assert missing == ["torch", "slipstream"], "this environment is not bare"
sys.path.insert(0, ".")
from run_policy import Policy
policy = Policy()
for line in sys.stdin:
    obs = json.loads(line)
    print(json.dumps(policy.reset() if obs is None else policy.step(obs).tolist()), flush=True)
"""


def run(*command: object, folder: Path = Path()) -> None:
    """Run a command as it would be typed, and show it."""
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)
    subprocess.run(words, check=True, cwd=folder)


def bare_environment(folder: Path) -> Path:
    """Make a virtual environment with numpy and onnxruntime alone; returns its python."""
    venv.create(folder, clear=True, with_pip=True)
    python = folder / "bin" / "python"
    quiet = ["--disable-pip-version-check", "--quiet"]
    constraints = ["-c", ROOT / "constraints.txt"]
    run(python, "-I", "-m", "pip", "install", *quiet, *constraints, "numpy", "onnxruntime")
    return python


class Remote:
    """The exported policy in a process of the bare environment."""

    def __init__(self, python: Path, exported: Path) -> None:
        self.process = subprocess.Popen(
            [python, "-I", "-c", ACT], cwd=exported, text=True, bufsize=1, stdin=-1, stdout=-1
        )

    def ask(self, obs: object) -> np.ndarray:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(obs), file=self.process.stdin)
        return np.array(json.loads(self.process.stdout.readline()), np.float32)

    def close(self) -> None:
        self.process.communicate()


def compare(policy: Policy, remote: Remote) -> tuple[list[float], float]:
    """Whole episodes by the exported policy: its returns, and how far off an action was at most."""
    env = gymnasium.make(policy.spec.env_id)
    returns, worst = [], 0.0
    half_range = (np.array(policy.spec.action_high) - policy.spec.action_low) / 2
    for seed in range(EPISODES):
        obs, _ = env.reset(seed=seed)
        remote.ask(None)
        carry, ended, total = policy.initial_carry(), False, 0.0
        while not ended:
            action = remote.ask(obs.tolist())
            live, carry = policy.step(obs, carry)
            worst = max(worst, float(np.abs((action - live) / half_range).max()))
            obs, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            ended = terminated or truncated
        returns.append(total)
    env.close()
    return returns, worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/sb3-to-onnx"))
    parser.add_argument("--steps", type=int, default=4_000, help="of each of the two trainings")
    options = parser.parse_args()
    out = options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    train_sac = ROOT / "examples" / "bring_your_own" / "train_sac.py"
    run(sys.executable, train_sac, options.steps, folder=out)
    command = Path(sys.executable).with_name("slipstream")
    config = ["--preset", "pendulum", "--algorithm", "sac", "--algorithms.sac.gamma", "0.98"]
    config += ["--learning-starts", options.steps // 8, "--cloning.burst", "600"]
    length = ["--total-steps", options.steps, "--eval.every", options.steps // 8, "--quiet"]
    accelerator = ["--accelerator", f"sb3:{out / 'pendulum_sac.zip'}"]
    run(command, "train", "Pendulum-v1", *config, *accelerator, *length, "--run-dir", out / "run")
    run(command, "export", out / "run", "--to", "onnx")

    python = bare_environment(out / "bare")
    policy = slipstream.load_policy(out / "run")
    remote = Remote(python, out / "run" / "export" / "onnx")
    returns, worst = compare(policy, remote)
    remote.close()
    live = slipstream.evaluate(policy, episodes=EPISODES, seed=0)
    print(f"\nreturn of the policy:       {live.mean:.2f}")
    print(f"return of the ONNX file:    {np.mean(returns):.2f}, without torch")
    print(f"actions differ at most by:  {worst:.1e} of [-1, 1]")
    assert worst < TOLERANCE, f"the exported policy acts otherwise: {worst}"
    assert np.allclose(returns, live.returns, rtol=1e-2, atol=1.0), (returns, live.returns)


if __name__ == "__main__":
    main()
