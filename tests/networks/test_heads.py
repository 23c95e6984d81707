import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from slipstream.networks.heads import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    SquashedGaussian,
    SquashedGaussianHead,
)


def test_log_prob_equals_torch_distributions():
    torch.manual_seed(0)
    mean = 0.5 * torch.randn(64, 3, dtype=torch.float64)
    log_std = torch.randn(64, 3, dtype=torch.float64) * 0.5 - 1
    action, log_prob = SquashedGaussian(mean, log_std).rsample_with_log_prob()
    reference = TransformedDistribution(
        Independent(Normal(mean, log_std.exp()), 1), [TanhTransform()]
    )
    torch.testing.assert_close(log_prob, reference.log_prob(action), rtol=1e-5, atol=1e-5)


def test_log_prob_has_the_gradient_of_torch_distributions():
    torch.manual_seed(0)
    mean = torch.randn(16, 3, dtype=torch.float64, requires_grad=True)
    log_std = (torch.randn(16, 3, dtype=torch.float64) * 0.3 - 1).requires_grad_()
    torch.manual_seed(1)
    action, log_prob = SquashedGaussian(mean, log_std).rsample_with_log_prob()
    loss = (action.sum(-1) - 0.1 * log_prob).sum()
    torch.manual_seed(1)
    reference = TransformedDistribution(
        Independent(Normal(mean, log_std.exp()), 1), [TanhTransform(cache_size=1)]
    )
    sample = reference.rsample()
    expected = (sample.sum(-1) - 0.1 * reference.log_prob(sample)).sum()
    torch.testing.assert_close(loss, expected)
    for one, other in zip(
        torch.autograd.grad(loss, (mean, log_std)),
        torch.autograd.grad(expected, (mean, log_std)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("extreme", [-1e4, -50.0, 50.0, 1e4])
@pytest.mark.parametrize("log_std", [LOG_STD_MIN, LOG_STD_MAX])
def test_extreme_means_stay_finite(extreme, log_std):
    mean = torch.full((8, 2), extreme, requires_grad=True)
    spread = torch.full((8, 2), log_std, requires_grad=True)
    action, log_prob = SquashedGaussian(mean, spread).rsample_with_log_prob()
    assert action.abs().max() <= 1 and log_prob.isfinite().all()
    grads = torch.autograd.grad((action.sum() + log_prob.sum()), (mean, spread))
    assert all(grad.isfinite().all() for grad in grads)


def test_samples_spread_as_they_should():
    torch.manual_seed(0)
    output = SquashedGaussian(torch.full((20_000, 1), 0.3), torch.full((20_000, 1), -0.7))
    for action in (output.sample(), output.rsample_with_log_prob()[0]):
        raw = torch.atanh(action.double())
        assert raw.mean().item() == pytest.approx(0.3, abs=0.02)
        assert raw.std().log().item() == pytest.approx(-0.7, abs=0.02)
    torch.testing.assert_close(output.mode, torch.tanh(output.mean))


def test_log_std_is_bounded():
    head = SquashedGaussianHead(3, 2)
    log_std = head(1e6 * torch.randn(100, 3)).log_std
    assert log_std.min() == LOG_STD_MIN and log_std.max() == LOG_STD_MAX
