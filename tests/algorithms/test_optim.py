import copy

import pytest
import torch
from torch import nn

from slipstream.algorithms.optim import FusedAdam


def nets():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    return net, copy.deepcopy(net)


def losses(net, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        yield net(torch.randn(5, 3, generator=generator)).square().mean()


def assert_same_path(ours, theirs, optimizer, reference, steps):
    """Both take the same steps, and nothing accumulates in ours."""
    for one, other in zip(losses(ours, steps), losses(theirs, steps), strict=True):
        optimizer.minimize(one)
        reference.zero_grad()
        other.backward()
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert one.grad is None


@pytest.mark.parametrize("lr", [1e-3, 0.1])
def test_equals_torchs_adam(lr):
    ours, theirs = nets()
    optimizer = FusedAdam(ours.parameters(), lr)
    assert_same_path(ours, theirs, optimizer, torch.optim.Adam(theirs.parameters(), lr), 10)


def test_takes_gradients_of_any_layout():
    """The kernel reads raw memory, and autograd does hand out transposed gradients."""
    ours, theirs = nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(3, 2))
    grad = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]]).t()
    assert not grad.is_contiguous()
    FusedAdam([ours], 0.1).step([grad])
    theirs.grad = grad.contiguous()
    torch.optim.Adam([theirs], 0.1).step()
    torch.testing.assert_close(ours, theirs)


def test_goes_on_after_saving_as_if_never_saved():
    whole, parted = nets()
    optimizer = FusedAdam(whole.parameters(), 0.1)
    for loss in losses(whole, 6):
        optimizer.minimize(loss)

    first = FusedAdam(parted.parameters(), 0.1)
    second = FusedAdam(parted.parameters(), 0.1)
    for i, loss in enumerate(losses(parted, 6)):
        if i == 3:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        (first if i < 3 else second).minimize(loss)
    for one, other in zip(whole.parameters(), parted.parameters(), strict=True):
        assert torch.equal(one, other)


def test_moves_its_own_parameters_alone():
    ours, other = nets()
    before = copy.deepcopy(other.state_dict())
    x = torch.randn(4, 3)
    FusedAdam(ours.parameters(), 0.1).minimize((ours(x) * other(x)).mean())
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert all(parameter.grad is None for parameter in other.parameters())


def test_refuses_a_state_of_another_network():
    ours, _ = nets()
    state = FusedAdam(list(ours.parameters())[:2], 0.1).state_dict()
    with pytest.raises(ValueError, match="shorter"):
        FusedAdam(ours.parameters(), 0.1).load_state_dict(state)


def test_parameters_apart_move_at_their_own_rate():
    ours, theirs = nets()
    optimizer = FusedAdam(ours.parameters(), 1e-2, ours[0].parameters(), 1e-4)
    groups = [{"params": theirs[0].parameters(), "lr": 1e-4}, {"params": theirs[2].parameters()}]
    assert_same_path(ours, theirs, optimizer, torch.optim.Adam(groups, 1e-2), 5)
