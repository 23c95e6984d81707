"""What is exported acts as the policy does, over whole episodes, and says what it cannot hold."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import slipstream.policies.export
from slipstream.envs import gl
from slipstream.errors import SlipstreamError
from slipstream.networks.linear import matmul_backend, onednn_available, set_matmul_backend
from slipstream.networks.memory import Carry, Prepare
from slipstream.policies.export import export_policy
from slipstream.policies.policy import Policy, load_policy
from tests.policies.live_policies import IMAGES, KINDS, live, seeing

TOLERANCE = 1e-5  # of the action in [-1, 1]; measured: 1e-6


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Export a policy, once for all the tests: kind and format -> the file."""
    made: dict[tuple[str, str], Path] = {}

    def export(name: str, to: Any = "onnx") -> Path:
        if (name, to) not in made:
            folder = tmp_path_factory.mktemp(f"{name}-{to}")
            made[name, to] = export_policy(live(name), folder, to)
        return made[name, to]

    return export


def runner(path: Path, num_envs: int = 1) -> Any:
    """The class of the generated script, as a user's program would import it."""
    space: dict[str, Any] = {"__name__": "run_policy", "__file__": str(path.parent / "run_policy")}
    exec((path.parent / "run_policy.py").read_text(), space)
    return space["Policy"](num_envs=num_envs)


def largest_difference(policy: Policy, act: Any, reset: Any, num_envs: int) -> float:
    """Between the policy and an export of it, in [-1, 1], over two episodes one after another."""
    env = policy.open_env(num_envs)
    half_range = policy.module.scale.numpy()
    worst = 0.0
    obs = env.reset(5)
    carry = policy.initial_carry(num_envs)
    reset()
    for episode in range(2):
        ended = False
        while not ended:
            action, carry = policy.step({key: obs[key] for key in policy.module.obs_spec}, carry)
            worst = max(worst, float(np.abs((act(obs) - action) / half_range).max()))
            result = env.step(action / half_range)
            obs, ended = result.obs, bool(result.truncated.all())
        if episode == 0:
            carry = policy.initial_carry(num_envs)
            reset()
    env.close()
    return worst


@pytest.mark.parametrize("name", KINDS)
def test_onnx_acts_as_the_policy_over_whole_episodes(name, exports):
    path = exports(name)
    for num_envs in (1, 3):  # one file runs any number of environments
        exported = runner(path, num_envs)
        worst = largest_difference(live(name), exported.step, exported.reset, num_envs)
        assert worst < TOLERANCE
    assert exported.about["max_difference"] < TOLERANCE


@pytest.mark.parametrize("name", ["lstm", "transformer-keys"])
def test_torch_export_acts_as_the_policy_over_whole_episodes(name, exports):
    path = exports(name, "torch-export")
    about = json.loads((path.parent / "policy.json").read_text())
    extra = {"slipstream.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["slipstream.json"]) == about
    carry: Carry = {}

    def reset() -> None:
        carry.clear()
        for part in about["carry"]:
            zeros = np.zeros((2, *part["shape"]), part["dtype"])
            carry[part["input"].removeprefix("carry_")] = torch.from_numpy(zeros)

    def act(obs: dict[str, np.ndarray]) -> np.ndarray:
        keys = [part["key"] for part in about["observations"]]
        action, after = module({key: torch.from_numpy(obs[key]) for key in keys}, dict(carry))
        carry.update(after)
        return action.numpy()

    assert largest_difference(live(name), act, reset, 2) < TOLERANCE


def test_a_cnn_before_a_transformer_acts_as_the_policy_over_whole_episodes(tmp_path):
    try:
        gl.open_context(8).free()
    except SlipstreamError as error:
        pytest.skip(str(error))
    policy = live(IMAGES, "Reacher-v5")
    export_policy(policy, tmp_path)
    for num_envs in (1, 2):
        exported = runner(tmp_path / "policy.onnx", num_envs)
        worst = largest_difference(policy, exported.step, exported.reset, num_envs)
        assert worst < TOLERANCE
    about = {each["key"]: (each["shape"], each["dtype"]) for each in exported.about["observations"]}
    assert about == {"rgb": ([16, 16, 3], "uint8"), "state": ([6], "float32")}


def test_images_go_in_as_they_are(tmp_path):
    policy = seeing()
    export_policy(policy, tmp_path)
    exported = runner(tmp_path / "policy.onnx", num_envs=2)
    rng = np.random.default_rng(0)
    carry, actions = policy.initial_carry(2), []
    for _ in range(30):
        obs = {
            "rgb": rng.integers(0, 256, (2, 12, 12, 3), np.uint8),
            "state": rng.standard_normal((2, 4)),
        }
        action, carry = policy.step(obs, carry)
        np.testing.assert_allclose(exported.step(obs), action, rtol=0, atol=2 * TOLERANCE)
        actions.append(action)
    assert np.std(actions) > 0.01
    light = {"rgb": np.ones((2, 12, 12, 3)), "state": np.zeros((2, 4))}
    with pytest.raises(ValueError, match="rgb is float64, for an image in uint8"):
        exported.step(light)


def test_safetensors_are_the_policys_folder(exports):
    path = exports("transformer", "safetensors")
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    policy, loaded = live("transformer"), load_policy(path.parent)
    assert loaded.description == json.loads(json.dumps(policy.description))
    for key, value in policy.actor.state_dict().items():
        assert torch.equal(loaded.actor.state_dict()[key], value)


def test_the_runner_begins_anew_where_it_is_told_to(exports):
    exported = runner(exports("gru"), num_envs=2)
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 2, 3))
    exported.step(first)
    exported.reset([False, True])
    action = exported.step(second)
    policy = live("gru")
    _, carry = policy.step(first, policy.initial_carry(2))
    carried, _ = policy.step(second, carry)
    fresh, _ = policy.step(second, policy.initial_carry(2))
    np.testing.assert_allclose(action, [carried[0], fresh[1]], atol=2 * TOLERANCE)
    alone = runner(exports("gru"))
    assert alone.step(second[0]).shape == (1,)
    with pytest.raises(ValueError, match=r"state is \(2, 3\), for 1 of"):
        alone.step(second)


BLOCKED = """
import runpy, sys
for name in ("torch", "slipstream", "onnx"):
    sys.modules[name] = None  # importing it fails
runpy.run_path(sys.argv[1], run_name="__main__")
assert "onnxruntime" in sys.modules
"""


def test_the_runner_needs_neither_torch_nor_slipstream(exports):
    path = exports("transformer-keys")
    command = [sys.executable, "-I", "-c", BLOCKED, str(path.parent / "run_policy.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    actions = [float(line.strip("[]")) for line in done.stdout.splitlines()]
    assert len(actions) == 10 and len(set(actions)) == 10
    assert all(-2 <= action <= 2 for action in actions)


def test_the_file_describes_itself(exports):
    onnx = pytest.importorskip("onnx")
    path = exports("transformer-keys")
    about = json.loads((path.parent / "policy.json").read_text())
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert (
        json.loads({each.key: each.value for each in model.metadata_props}["slipstream"]) == about
    )
    assert (about["env_id"], about["kind"]) == ("Pendulum-v1", "transformer")
    assert about["context_length"] == 3
    assert about["action"] == {"output": "action", "low": [-2.0], "high": [2.0]}
    assert [(each["key"], each["shape"]) for each in about["observations"]] == [
        ("state", [3]),
        ("prev_reward", [1]),
    ]
    names = {each["input"]: (each["shape"], each["dtype"]) for each in about["carry"]}
    assert names == {
        "carry_window": ([3, 5], "float32"),
        "carry_valid": ([3], "bool"),
        "carry_prev_action": ([1], "float32"),
    }
    inputs = {each.name: each.type.tensor_type for each in model.graph.input}
    assert list(inputs) == ["obs_state", "obs_prev_reward", *names]
    assert inputs["carry_valid"].elem_type == onnx.TensorProto.BOOL
    assert all(each.shape.dim[0].dim_param == "batch" for each in inputs.values())
    outputs = [each.name for each in model.graph.output]
    assert outputs == ["action", *(each["output"] for each in about["carry"])]
    # Nothing of the machine that it was made on.
    here = str(Path(slipstream.policies.export.__file__).parents[3]).encode()
    assert here not in path.read_bytes()


class Odd(nn.Module):
    """A network that does what a graph cannot hold, or begins with a memory of ones."""

    context_length = loss_steps = 1
    feature_size = 3

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def initial_carry(self, num_envs: int) -> Carry:
        return {"h": torch.full((num_envs, 3), float(self.fault == "ones"))}

    def step(self, raw: torch.Tensor, carry: Carry, prepare: Prepare) -> tuple[torch.Tensor, Carry]:
        if self.fault == "branch" and raw.sum().item() > 0:
            raw = -raw
        if self.fault == "bessel":
            raw = torch.special.bessel_j0(raw)
        return raw, carry

    def memory_parameters(self) -> list[nn.Parameter]:
        return []


def odd(fault: str) -> Policy:
    policy = live("mlp")
    policy.actor.backbone = Odd(fault)
    policy.actor.head.output = nn.Linear(3, 1)
    return policy


@pytest.mark.parametrize(
    ("fault", "to", "said"),
    [
        ("bessel", "onnx", ["Odd", "bessel_j0", "safetensors"]),
        ("branch", "onnx", ["Odd", "data-dependent", "safetensors"]),
        ("branch", "torch-export", ["Odd", "data-dependent", "safetensors"]),
        ("ones", "onnx", ["'h'", "zero", "safetensors"]),
    ],
)
def test_a_part_that_a_format_cannot_hold_is_named_in_one_line(fault, to, said, tmp_path, capfd):
    with pytest.raises(SlipstreamError) as error:
        export_policy(odd(fault), tmp_path / "out", to)
    assert all(word in str(error.value) for word in said)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").iterdir())  # no half of an export is left
    assert capfd.readouterr() == ("", "")  # nor what the tracers have to say


def test_an_export_that_acts_otherwise_is_not_written(tmp_path, monkeypatch):
    from slipstream.policies.export import graph

    monkeypatch.setattr(graph, "TOLERANCE", -1.0)
    with pytest.raises(SlipstreamError, match="acts otherwise than the policy"):
        export_policy(live("mlp"), tmp_path / "out", "torch-export")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(not onednn_available(), reason="this build of torch has no oneDNN")
def test_the_backend_of_a_run_is_neither_exported_nor_changed(tmp_path):
    set_matmul_backend("onednn")
    try:
        path = export_policy(live("mlp"), tmp_path, "torch-export")
        assert matmul_backend() == "onednn"
    finally:
        set_matmul_backend("default")
    assert "mkldnn" not in str(torch.export.load(path).graph)


def test_folders_are_replaced_only_where_they_hold_an_export(tmp_path):
    policy = live("mlp")
    first = export_policy(policy, tmp_path / "a" / "b", "safetensors")
    assert export_policy(policy, tmp_path / "a" / "b", "safetensors") == first
    assert load_policy(first.parent).spec == policy.spec
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(SlipstreamError, match=r"something else already \(a, metrics.jsonl\)"):
        export_policy(policy, tmp_path, "safetensors")
    with pytest.raises(SlipstreamError, match="cannot write to"):
        export_policy(policy, tmp_path / "metrics.jsonl", "safetensors")
    with pytest.raises(SlipstreamError, match="no format 'tflite'; choose one of onnx"):
        export_policy(policy, tmp_path / "c", "tflite")  # pyright: ignore[reportArgumentType]


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SlipstreamError, match=r"onnxscript; install .*slipstream-rl\[export\]"):
        export_policy(live("mlp"), tmp_path / "out", "onnx")
