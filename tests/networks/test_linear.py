from functools import partial

import pytest
import torch

from slipstream.errors import SlipstreamError
from slipstream.networks.linear import (
    EnsembleLinear,
    Linear,
    bf16_available,
    fastest_matmul_backend,
    matmul_backend,
    onednn_available,
    set_matmul_backend,
)
from slipstream.networks.mlp import EnsembleMLP
from tests.networks.policies import OBS_DIM, policy

needs_onednn = pytest.mark.skipif(not onednn_available(), reason="no oneDNN in this torch")

needs_bf16 = pytest.mark.skipif(not bf16_available(), reason="no bf16 on this processor")


@pytest.fixture(autouse=True)
def default_backend():
    before = matmul_backend()
    set_matmul_backend("default")
    yield
    set_matmul_backend(before)


def values_and_grads(function, *tensors, backends=("default", "onednn")):
    """Output of a function under each backend, and the gradients of a fixed projection of it."""
    results = []
    for backend in backends:
        set_matmul_backend(backend)
        output = function()
        torch.manual_seed(3)
        grads = torch.autograd.grad((output * torch.randn_like(output)).sum(), tensors)
        results.append([output.detach(), *grads])
    return results


@needs_onednn
@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5), (1, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_onednn_linear_equals_the_default(shape, bias):
    torch.manual_seed(0)
    layer = Linear(5, 6, bias=bias)
    x = torch.randn(shape, requires_grad=True)
    default, onednn = values_and_grads(lambda: layer(x), x, *layer.parameters())
    for one, other in zip(default, onednn, strict=True):
        torch.testing.assert_close(one, other)


@needs_onednn
def test_onednn_takes_strided_inputs():
    torch.manual_seed(0)
    layer = Linear(5, 6)
    x = torch.randn(5, 4, requires_grad=True)
    default, onednn = values_and_grads(lambda: layer(x.t()), x, *layer.parameters())
    for one, other in zip(default, onednn, strict=True):
        torch.testing.assert_close(one, other)


@needs_onednn
@pytest.mark.parametrize("shape", [(7, 5), (3, 7, 5)], ids=["shared", "separate"])
def test_onednn_ensemble_equals_the_default(shape):
    torch.manual_seed(0)
    layer = EnsembleLinear(3, 5, 6)
    x = torch.randn(shape, requires_grad=True)

    default, onednn = values_and_grads(lambda: layer(x), x, *layer.parameters())
    for one, other in zip(default, onednn, strict=True):
        torch.testing.assert_close(one, other)


@needs_onednn
@pytest.mark.parametrize("name", ["mlp", "transformer-c3-l2-residual", "transformer-c3-l2-gru"])
def test_onednn_policy_equals_the_default(name):
    actor = policy(name, "squashed_gaussian")
    obs = torch.randn(8, actor.context_length, OBS_DIM)
    valid = torch.ones(8, actor.context_length, dtype=torch.bool)
    default, onednn = values_and_grads(
        lambda: torch.cat(
            [actor({"state": obs}, valid).mean, actor({"state": obs}, valid).log_std]
        ),
        *actor.parameters(),
    )
    for one, other in zip(default, onednn, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def assert_rounded(exact, rounded):
    """Equal within bf16's rounding of factors and result, and rounded indeed."""
    for one, other in zip(exact, rounded, strict=True):
        error = (one - other).norm() / one.norm()
        assert error < 0.01, error
    assert not torch.equal(exact[0], rounded[0])


@needs_bf16
@pytest.mark.parametrize("bias", [True, False])
def test_bf16_linear_is_the_default_rounded(bias):
    torch.manual_seed(0)
    layer = Linear(96, 80, bias=bias)
    x = torch.randn(3, 40, 96, requires_grad=True)
    assert_rounded(
        *values_and_grads(lambda: layer(x), x, *layer.parameters(), backends=("default", "bf16"))
    )


@needs_bf16
@pytest.mark.parametrize("shape", [(70, 96), (2, 70, 96)], ids=["shared", "separate"])
def test_bf16_ensemble_is_the_default_rounded(shape):
    torch.manual_seed(0)
    layer = EnsembleLinear(2, 96, 80)
    x = torch.randn(shape, requires_grad=True)
    assert_rounded(
        *values_and_grads(
            lambda: layer(x),
            x,
            *layer.parameters(),
            backends=("default", "bf16"),
        )
    )


@needs_bf16
def test_bf16_leaves_small_products_and_acting_alone():
    torch.manual_seed(0)
    for layer, rows in ((Linear(96, 80), 1), (Linear(17, 80), 256), (Linear(96, 6), 256)):
        product = partial(layer, torch.randn(rows, layer.in_features))
        default, bf16 = values_and_grads(product, layer.weight, backends=("default", "bf16"))
        assert torch.equal(default[0], bf16[0])


def test_bf16_is_refused_where_it_would_be_slow(monkeypatch):
    monkeypatch.setattr("slipstream.networks.linear.bf16_available", lambda: False)
    with pytest.raises(SlipstreamError, match="no bf16 instructions"):
        set_matmul_backend("bf16")
    assert matmul_backend() == "default"


@pytest.mark.parametrize("layer_norm", [False, True])
def test_an_ensemble_is_its_members_side_by_side(layer_norm):
    torch.manual_seed(0)
    ensemble = EnsembleMLP(3, 5, (6, 7), layer_norm)
    x = torch.randn(4, 2, 5)
    together = ensemble(x)
    assert together.shape == (3, 4, 2)
    for e in range(3):
        y = x
        for i, layer in enumerate(ensemble.layers):
            assert isinstance(layer, EnsembleLinear)
            y = y @ layer.weight[e] + layer.bias[e, 0]
            if i < 2:
                y = torch.relu(torch.nn.functional.layer_norm(y, y.shape[-1:]) if layer_norm else y)
        torch.testing.assert_close(together[e], y.squeeze(-1))
    torch.testing.assert_close(ensemble(x, first=True), together[:1])


def test_members_differ():
    torch.manual_seed(0)
    values = EnsembleMLP(2, 5, (6,), False)(torch.randn(4, 1, 5))
    assert (values[0] - values[1]).abs().min() > 1e-4


def test_measuring_the_backends_leaves_the_choice_alone():
    assert fastest_matmul_backend(rows=8, width=8, seconds=0.01) in ("default", "onednn")
    assert matmul_backend() == "default"
