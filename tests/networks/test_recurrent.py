import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from slipstream.errors import SlipstreamError
from slipstream.networks.linear import set_matmul_backend
from slipstream.networks.memory import Carry, reset_carry
from slipstream.networks.recurrent import GRUBackbone, LSTMBackbone, RecurrentConfig

INPUT, HIDDEN = 5, 7
KINDS = {"lstm": LSTMBackbone, "gru": GRUBackbone}
assert_close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)

kinds = pytest.mark.parametrize("kind", KINDS)
layers = pytest.mark.parametrize("n_layers", [1, 2])


def backbone(kind: str, n_layers: int = 1, **fields) -> LSTMBackbone | GRUBackbone:
    """A small network whose biases matter too."""
    torch.manual_seed(0)
    config = RecurrentConfig(embed_size=6, hidden_size=HIDDEN, n_layers=n_layers, **fields)
    net = KINDS[kind](config, INPUT)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net


def identity(x: Tensor) -> Tensor:
    return x


def normalize(x: Tensor) -> Tensor:
    return ((x - 0.7) / 1.9).clamp(-1.0, 1.0)


def walk(
    net, frames: Tensor, started: Tensor | None = None, prepare=identity
) -> tuple[Tensor, Carry]:
    """Features (N, T, H) of every step of frames (N, T, K); `started` (N, T) begins episodes."""
    num_envs, length, _ = frames.shape
    carry, features = net.initial_carry(num_envs), []
    for t in range(length):
        if started is not None:
            carry = reset_carry(carry, net.initial_carry(num_envs), started[:, t])
        y, carry = net.step(frames[:, t], carry, prepare)
        features.append(y)
    return torch.stack(features, 1), carry


def all_valid(batch: int, length: int) -> Tensor:
    return torch.ones(batch, length, dtype=torch.bool)


def every_padding(length: int) -> Tensor:
    """(T, T) bool: row i has i padded steps."""
    return torch.arange(length) >= torch.arange(length)[:, None]


@layers
@kinds
def test_acting_equals_training(kind, n_layers):
    """Step by step from an episode's start gives what the whole episode gives, however long."""
    net = backbone(kind, n_layers)
    frames = torch.randn(3, 23, INPUT)  # longer than context_length
    acted, _ = walk(net, frames)
    assert_close(acted, net(frames, all_valid(3, 23), 23))
    for length in (1, 2, net.context_length, 23):
        so_far = net(frames[:, :length], all_valid(3, length))
        assert_close(acted[:, length - 1 : length], so_far)


@layers
@kinds
def test_acting_equals_training_behind_padding(kind, n_layers):
    """Windows cut short by their episode's start, padded as the replay pads them."""
    net = backbone(kind, n_layers)
    length = 6
    frames, valid = torch.randn(length, length, INPUT), every_padding(length)
    for i in range(length):
        frames[i, :i] = frames[i, i]
    outputs = net(frames, valid, length)
    for i in range(length):
        acted, _ = walk(net, frames[i : i + 1, i:])
        assert_close(outputs[i : i + 1, i:], acted)


@layers
@kinds
def test_acting_equals_training_with_normalization_and_a_restart(kind, n_layers):
    """The second of three environments begins a new episode at its fifth step."""
    net = backbone(kind, n_layers)
    raw = 2 * torch.randn(3, 9, INPUT) + 1
    started = torch.zeros(3, 9, dtype=torch.bool)
    started[1, 4] = True
    acted, _ = walk(net, raw, started, normalize)
    prepared = normalize(raw)
    whole = net(prepared, all_valid(3, 9), 9)
    assert_close(acted[[0, 2]], whole[[0, 2]])
    assert_close(acted[1, :4], whole[1, :4])
    assert_close(acted[1:2, 4:], net(prepared[1:2, 4:], all_valid(1, 5), 5))
    assert (acted[1, 4:] - whole[1, 4:]).abs().max() > 1e-3
    unprepared = net(raw, all_valid(3, 9), 9)
    assert (acted[0] - unprepared[0]).abs().max() > 1e-3


@layers
@kinds
def test_the_state_lasts_beyond_the_training_window(kind, n_layers):
    net = backbone(kind, n_layers, context_length=3, burn_in=1)
    frames = torch.randn(1, 6, INPUT)
    other = frames.clone()
    other[:, 0] += 1
    difference = walk(net, frames)[0] - walk(net, other)[0]
    assert difference[:, -1].abs().max() > 1e-4


@pytest.mark.parametrize("garbage", [1e9, float("inf"), float("nan")])
@layers
@kinds
def test_padding_never_matters(kind, n_layers, garbage):
    """Neither for outputs nor for gradients, not even where no number stands."""
    net = backbone(kind, n_layers)
    length = 5
    valid = every_padding(length)
    frames = torch.randn(length, length, INPUT)
    poisoned = torch.where(valid[..., None], frames, garbage).requires_grad_()
    clean = net(frames, valid, length)
    output = net(poisoned, valid, length)
    assert torch.equal(output, clean)  # at padded steps too: they are finite
    gradients = torch.autograd.grad(clean[valid].square().sum(), list(net.parameters()))
    output[valid].square().sum().backward()
    for parameter, expected in zip(net.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, expected)
    assert poisoned.grad is not None
    assert torch.all(poisoned.grad[~valid] == 0)
    assert torch.all(poisoned.grad[valid].abs().sum(-1) > 0)


@kinds
def test_the_future_never_matters(kind):
    net = backbone(kind, 2)
    frames = torch.randn(2, 6, INPUT)
    changed = frames.clone()
    changed[:, -1] += 1
    before, after = (net(x, all_valid(2, 6), 6) for x in (frames, changed))
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


@layers
@kinds
def test_last_steps_are_those_of_the_whole_window(kind, n_layers):
    net = backbone(kind, n_layers)
    frames, valid = torch.randn(6, 6, INPUT), every_padding(6)
    whole = net(frames, valid, 6)
    for last in range(1, 7):
        output = net(frames, valid, last)
        assert output.shape == (6, last, net.feature_size)
        torch.testing.assert_close(output, whole[:, -last:])


@kinds
def test_windows_may_be_views(kind):
    """A batch hands out views of the replay's windows, which are not contiguous."""
    net = backbone(kind)
    window = torch.randn(4, 7, INPUT)
    valid = all_valid(4, 7)
    output = net(window[:, 1:], valid[:, 1:], 3)
    torch.testing.assert_close(output, net(window[:, 1:].contiguous(), all_valid(4, 6), 3))


@kinds
def test_a_mid_episode_window_forgets_that_it_began_at_zero(kind):
    """The more steps before it, the closer a feature comes to the one that acting had."""
    torch.manual_seed(0)
    net = KINDS[kind](RecurrentConfig(), INPUT)
    frames = torch.randn(32, 60, INPUT)
    with torch.no_grad():
        carried = net(frames, all_valid(32, 60))
        errors = [
            ((net(frames[:, -n:], all_valid(32, n)) - carried).norm() / carried.norm()).item()
            for n in (1, 5, 16, 40)
        ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.3
    assert errors[-1] < 0.1


@layers
@kinds
def test_it_is_torchs_network(kind, n_layers):
    """The features are the top states of torch's network run on each window by itself."""
    net = backbone(kind, n_layers)
    frames, valid = torch.randn(4, 4, INPUT), every_padding(4)
    output = net(frames, valid, 4)
    for i in range(4):
        alone, _ = net.rnn(torch.relu(nn.Linear.forward(net.embed, frames[i, i:])))
        assert_close(output[i, i:], alone)


@layers
@kinds
def test_every_parameter_learns(kind, n_layers):
    net = backbone(kind, n_layers)
    net(torch.randn(4, 5, INPUT), all_valid(4, 5), 3).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@layers
@kinds
def test_acting_and_training_have_the_same_gradients(kind, n_layers):
    net = backbone(kind, n_layers)
    frames = torch.randn(2, 6, INPUT)
    parameters = list(net.parameters())
    by_step = torch.autograd.grad(walk(net, frames)[0].square().sum(), parameters)
    by_window = torch.autograd.grad(net(frames, all_valid(2, 6), 6).square().sum(), parameters)
    for one, other in zip(by_step, by_window, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@kinds
def test_it_learns_to_remember(kind):
    """Say the first observation of the episode at its sixth step: no other step knows it."""
    torch.manual_seed(0)
    net = KINDS[kind](RecurrentConfig(embed_size=16, hidden_size=16), 1)
    head = nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], 1e-2)
    losses = []
    for _ in range(200):
        frames = torch.randint(0, 2, (32, 6, 1)) * 2.0 - 1.0
        loss = (head(net(frames, all_valid(32, 6)))[:, 0] - frames[:, 0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[:5]) / 5 > 0.8
    assert sum(losses[-10:]) / 10 < 0.05


@layers
@kinds
def test_state_dict_round_trip(kind, n_layers):
    net = backbone(kind, n_layers)
    other = KINDS[kind](RecurrentConfig(6, HIDDEN, n_layers), INPUT)
    frames, valid = torch.randn(2, 4, INPUT), all_valid(2, 4)
    assert not torch.equal(net(frames, valid), other(frames, valid))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(frames, valid), other(frames, valid))
    copied = copy.deepcopy(net)  # a target network
    assert torch.equal(net(frames, valid), copied(frames, valid))
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.lerp_(torch.zeros_like(parameter), 0.5)
    assert not torch.equal(net(frames, valid), copied(frames, valid))
    assert_close(
        copied(frames, valid, 4), walk(copied, frames)[0]
    )  # what acts and what learns are the same weights


@layers
@kinds
def test_a_carry_is_a_value(kind, n_layers):
    net = backbone(kind, n_layers)
    carry = net.initial_carry(2)
    assert set(carry) == ({"h", "c"} if kind == "lstm" else {"h"})
    assert all(value.shape == (2, n_layers, HIDDEN) for value in carry.values())
    assert all(torch.all(value == 0) for value in carry.values())
    _, carry = net.step(torch.randn(2, INPUT), carry, identity)
    kept = {name: value.clone() for name, value in carry.items()}
    raw = torch.randn(2, INPUT)
    before = raw.clone()
    first, following = net.step(raw, carry, identity)
    second, _ = net.step(raw, carry, identity)
    assert torch.equal(first, second)
    assert torch.equal(raw, before)
    assert all(torch.equal(carry[name], kept[name]) for name in kept)
    assert {name: value.shape for name, value in following.items()} == {
        name: value.shape for name, value in carry.items()
    }


@layers
@kinds
def test_initial_weights(kind, n_layers):
    torch.manual_seed(0)
    net = KINDS[kind](RecurrentConfig(hidden_size=HIDDEN, n_layers=n_layers), INPUT)
    for _, weight_hh, bias_ih, bias_hh in net.rnn.all_weights:
        for gate in weight_hh.split(HIDDEN):
            torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN), rtol=0, atol=1e-5)
        bias = (bias_ih + bias_hh).split(HIDDEN)
        for i, gate in enumerate(bias):  # torch's order: input, forget, candidate, output
            assert torch.all(gate == (1.0 if kind == "lstm" and i == 1 else 0.0))


@kinds
def test_both_matmul_backends_agree(kind):
    net = backbone(kind)
    frames, valid = torch.randn(3, 4, INPUT), all_valid(3, 4)
    expected = net(frames, valid, 2)
    try:
        set_matmul_backend("onednn")
        assert_close(net(frames, valid, 2), expected)
    finally:
        set_matmul_backend("default")


def test_what_a_training_window_is():
    net = LSTMBackbone(RecurrentConfig(context_length=10, burn_in=3, hidden_size=4), INPUT)
    assert (net.context_length, net.loss_steps, net.feature_size) == (10, 7, 4)
    assert GRUBackbone(RecurrentConfig(context_length=1, burn_in=0), INPUT).loss_steps == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"embed_size": 0},
        {"hidden_size": 0},
        {"n_layers": -1},
        {"context_length": 0, "burn_in": 0},
        {"burn_in": -1},
        {"burn_in": 16, "context_length": 16},
        {"burn_in": 20, "context_length": 16},
    ],
)
def test_impossible_networks_are_refused(fields):
    with pytest.raises(SlipstreamError, match=next(iter(fields))):
        RecurrentConfig(**fields)
