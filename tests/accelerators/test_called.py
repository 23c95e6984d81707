"""Functions and ONNX files as accelerators."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from slipstream.accelerators import bring, bring_again, describe_brought
from slipstream.accelerators.frozen import FromEnv, Spread
from slipstream.errors import SlipstreamError
from slipstream.networks.heads import Deterministic
from slipstream.spec import EnvSpec
from tests.accelerators.models import observations, our_actions, pendulum, run_config

MODULE = '''
import numpy as np

GAIN = np.array([0.5, -0.3, 0.1], np.float32)


def swing(obs):
    """One observation (3,) -> one action (1,), in [-2, 2]."""
    assert obs.shape == (3,)
    return 2 * np.tanh(obs @ GAIN)[None]


def swing_all(obs):
    assert obs.ndim == 2
    return 2 * np.tanh(obs @ GAIN)[:, None]


swing_all.batched = True


class Swing:
    def __init__(self):
        self.gain = GAIN

    def __call__(self, obs):
        return [2 * np.tanh(obs @ self.gain)]


def beyond(obs):
    return [17.0 if obs[0] > 0 else -17.0]


def too_many(obs):
    return np.zeros(2)


def broken(obs):
    return [float("nan")]


def mistaken(obs):
    return {}["action"]


gain = GAIN
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_policies.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield "own_policies"
    sys.modules.pop("own_policies", None)


def expected(obs):
    return np.tanh(obs @ np.array([0.5, -0.3, 0.1], np.float32))[:, None]


@pytest.mark.parametrize("name", ["swing", "swing_all", "Swing"])
@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_a_function_acts_in_the_environments_units(module, name, algorithm):
    brought = bring(run_config(f"python:{module}:{name}", algorithm), pendulum())
    assert brought is not None and not brought.learns and brought.critic is None
    obs = observations()
    np.testing.assert_allclose(our_actions(brought.actor, obs), expected(obs), atol=1e-5)
    output, _ = brought.actor.step({"state": torch.as_tensor(obs)}, {})
    assert isinstance(output, Spread if algorithm == "sac" else Deterministic)
    assert list(brought.actor.parameters()) == []
    assert describe_brought(brought) == (
        f"python:{module}:{name}: stays as it is, critics learnt from nothing"
    )


def test_a_component_that_cannot_move_stays_in_the_middle():
    scale = FromEnv(EnvSpec("it", {}, (-2.0, 0.5), (2.0, 0.5)))
    assert scale(torch.tensor([[1.0, 0.5], [3.0, 0.5]])).tolist() == [[0.5, 0.0], [1.0, 0.0]]


def test_actions_beyond_the_bounds_are_clipped(module):
    brought = bring(run_config(f"python:{module}:beyond"), pendulum())
    assert brought is not None
    assert set(our_actions(brought.actor, observations()).ravel()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no_such_module:f", r"accelerator no_such_module:f: there is no module"),
        ("{}:swin", r"has no 'swin'; did you mean swing"),
        ("{}", r"'own_policies' is no import path; write module:name"),
        ("{}:gain", r"own_policies:gain is a ndarray; name a function"),
    ],
)
def test_what_is_no_function_is_told(module, place, said):
    with pytest.raises(SlipstreamError, match=said):
        bring(run_config(f"python:{place.format(module)}"), pendulum())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("too_many", r"too_many returned \(2,\) .* shape \(3,\), but .* shape \(1,\)"),
        ("broken", r"broken returned nan in component 0"),
        ("mistaken", r"mistaken failed at .*own_policies\.py:\d+ with KeyError: .*\(3,\)"),
    ],
)
def test_actions_that_do_not_fit_are_told(module, name, said):
    brought = bring(run_config(f"python:{module}:{name}"), pendulum())
    assert brought is not None
    with pytest.raises(SlipstreamError, match=said):
        our_actions(brought.actor, observations())


def write_onnx(path, batch="batch", dtype="FLOAT", obs_size=3, action_size=1, inputs=1):
    """action = 2 tanh(obs @ gain), as `swing_all`, for any number of inputs that are added up."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kind = getattr(onnx.TensorProto, dtype)
    numpy_kind = {"FLOAT": np.float32, "DOUBLE": np.float64}[dtype]
    gain = np.zeros((obs_size, action_size), numpy_kind)
    gain[:3, 0] = [0.5, -0.3, 0.1][:obs_size]
    helper = onnx.helper
    names = [f"obs{i}" for i in range(inputs)]
    nodes = [
        helper.make_node("Sum", names, ["sum"]),
        helper.make_node("MatMul", ["sum", "gain"], ["product"]),
        helper.make_node("Tanh", ["product"], ["squashed"]),
        helper.make_node("Add", ["squashed", "squashed"], ["action"]),
    ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info(name, kind, [batch, obs_size]) for name in names],
        [helper.make_tensor_value_info("action", kind, [batch, action_size])],
        [onnx.numpy_helper.from_array(gain, "gain")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("batch", ["batch", 1, 8])
@pytest.mark.parametrize("dtype", ["FLOAT", "DOUBLE"])
def test_an_onnx_file_acts_in_the_environments_units(batch, dtype, tmp_path):
    path = write_onnx(tmp_path / "policy.onnx", batch, dtype)
    config = run_config(f"onnx:{path}")
    brought = bring(config, pendulum())
    assert brought is not None and not brought.learns
    obs = observations(50)
    np.testing.assert_allclose(our_actions(brought.actor, obs), expected(obs), atol=1e-5)
    # A resumed run needs no file: its bytes are kept.
    path.unlink()
    again = bring_again(brought.recipe, config, pendulum())
    assert again is not None
    np.testing.assert_allclose(our_actions(again.actor, obs), expected(obs), atol=1e-5)


def test_onnx_files_that_do_not_fit_are_told(tmp_path):
    wide = write_onnx(tmp_path / "wide.onnx", obs_size=17, action_size=6)
    two = write_onnx(tmp_path / "two.onnx", inputs=2)
    rubbish = tmp_path / "rubbish.onnx"
    rubbish.write_bytes(b"rubbish")
    for path, said in (
        (wide, r"size 17 and gives actions of size 6, but Pendulum-v1 .*size 3 .*size 1"),
        (two, r"has the input obs0 .*, obs1 .*name its run: slipstream:RUN"),
        (rubbish, r"is no ONNX model that ONNX Runtime"),
        (tmp_path / "none.onnx", r"none\.onnx cannot be read: No such file"),
        (tmp_path, r"cannot be read: Is a directory"),
    ):
        with pytest.raises(SlipstreamError, match=said) as error:
            bring(run_config(f"onnx:{path}"), pendulum())
        assert "\n" not in str(error.value)


def test_a_missing_runtime_is_told(tmp_path, monkeypatch):
    path = write_onnx(tmp_path / "policy.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SlipstreamError, match="pip install onnxruntime"):
        bring(run_config(f"onnx:{path}"), pendulum())


def test_several_vectors_are_told(module):
    spec = pendulum()
    several = replace(spec, obs={"a": spec.obs["state"], "b": spec.obs["state"]})
    with pytest.raises(SlipstreamError, match=r"reads one vector, but Pendulum-v1 shows \{'a'"):
        bring(run_config(f"python:{module}:swing"), several)
    shown = replace(spec, obs={**spec.obs, "prev_action": spec.obs["state"]})
    assert bring(run_config(f"python:{module}:swing"), shown) is not None
