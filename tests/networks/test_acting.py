"""Acting equals training: step by step gives what the windows of the replay give."""

import copy

import numpy as np
import pytest
import torch

from slipstream.batch import Batch
from slipstream.networks import Normalizer
from slipstream.networks.heads import HEADS
from slipstream.networks.memory import reset_carry
from slipstream.replay import ReplayBuffer
from tests.networks.policies import ACTION_DIM, OBS_DIM, POLICIES, SPEC, policy

# Episode lengths of three environments: shorter and longer than every context, ends at odd times.
LENGTHS = ((2, 13, 1, 4), (11, 1, 8), (20,))
NUM_STEPS = 20
NUM_SAMPLES = 900  # enough to draw each of the 60 transitions


def outputs_of(output):
    """Everything a head says, side by side: (..., K)."""
    parts = [output.mode]
    if hasattr(output, "log_std"):
        parts += [output.mean, output.log_std]
    return torch.cat(parts, -1)


def act_and_store(actor, normalizer, moving=True):
    """Act in three environments of random observations, resetting carries as their episodes end.

    Returns the replay, and for each observation acted on (told by its first component, which is
    unique) the output then and the normalizer's state then.
    """
    rng = np.random.default_rng(0)
    ids = iter(range(1, 1000))

    def observe(n):
        obs = rng.normal(1.0, 2.0, (n, OBS_DIM)).astype(np.float32)
        obs[:, 0] = [next(ids) / 100 for _ in range(n)]
        return obs

    n = len(LENGTHS)
    ends = [set(np.cumsum(lengths) - 1) for lengths in LENGTHS]
    replay = ReplayBuffer(SPEC, 40 * n, n)
    obs = observe(n)
    replay.begin({"state": obs})
    carry, seen = actor.initial_carry(n), {}
    for t in range(NUM_STEPS):
        if normalizer is not None and moving:
            normalizer.observe(torch.from_numpy(obs))
        output, carry = actor.step({"state": torch.from_numpy(obs)}, carry)
        for i, row in enumerate(outputs_of(output)):
            seen[float(obs[i, 0])] = row, copy.deepcopy(normalizer)
        done = np.array([t in end for end in ends])
        # Ends are alternately terminal and cut off: neither may leak into the next episode.
        terminated, truncated = done & (t % 2 == 0), done & (t % 2 == 1)
        following = observe(n)
        replay.add(
            rng.uniform(-1, 1, (n, ACTION_DIM)).astype(np.float32),
            np.zeros(n, np.float32),
            terminated,
            truncated,
            {"state": following},
        )
        if done.any():
            first = observe(n)
            replay.begin({"state": first}, done)
            carry = reset_carry(carry, actor.initial_carry(n), torch.from_numpy(done))
            following = np.where(done[:, None], first, following)
        obs = following
    return replay, seen


def window(batch: Batch, i: int, following: bool):
    obs = batch.next_obs if following else batch.obs
    valid = batch.next_valid if following else batch.obs_valid
    return {"state": obs["state"][i : i + 1]}, valid[i : i + 1]


@pytest.mark.parametrize("normalized", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", POLICIES)
def test_acting_equals_training(name, head, normalized):
    normalizer = Normalizer(OBS_DIM) if normalized else None
    actor = policy(name, head, normalizer)
    recurrent = POLICIES[name][0] in ("lstm", "gru")
    if normalizer is not None and recurrent:
        # A state keeps what it made of earlier observations: statistics must stand still.
        normalizer.observe(3 * torch.randn(50, OBS_DIM) + 1)
    replay, seen = act_and_store(actor, normalizer, moving=not recurrent)
    torch.manual_seed(1)
    batch = replay.sample(NUM_SAMPLES, NUM_STEPS)  # whole episodes, whatever the context

    compared: set[float] = set()
    for i in range(NUM_SAMPLES):
        for following in (False, True):  # the next observation is what was acted on next
            obs, valid = window(batch, i, following)
            key = float(obs["state"][0, -1, 0])
            if key in compared or key not in seen:  # not seen: an episode's final observation
                continue
            expected, then = seen[key]
            if normalizer is not None:
                normalizer.load_state_dict(then.state_dict())
            with torch.no_grad():
                output = outputs_of(actor(obs, valid))[0, 0]
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
            compared.add(key)
    assert len(compared) == NUM_STEPS * len(LENGTHS)


@pytest.mark.parametrize("name", ["transformer-c3-l2-residual", "transformer-c10-l1-gru"])
def test_memory_matters(name):
    """The test above would pass for a policy that ignores its memory: this one must not."""
    actor = policy(name)
    obs = torch.randn(1, actor.context_length, OBS_DIM)
    other = obs.clone()
    other[:, 0] += 1
    valid = torch.ones(1, actor.context_length, dtype=torch.bool)
    difference = actor({"state": obs}, valid).mode - actor({"state": other}, valid).mode
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", POLICIES)
def test_last_steps_are_those_of_the_whole_window(name, head):
    actor = policy(name, head)
    length = 6 if actor.context_length == 1 and name.startswith("mlp") else actor.context_length
    obs = {"state": torch.randn(5, length, OBS_DIM)}
    valid = (
        torch.arange(length)
        >= torch.tensor([0, 1, 2, 5, length - 1]).clamp(max=length - 1)[:, None]
    )
    whole = outputs_of(actor(obs, valid, length))
    for last in range(1, length + 1):
        torch.testing.assert_close(outputs_of(actor(obs, valid, last)), whole[:, -last:])


@pytest.mark.parametrize("name", POLICIES)
def test_padding_never_matters(name):
    """Whatever finite values stand in padded rows, outputs at real steps are the same, bit for bit.

    NaN or infinity there would reach the output as 0 x NaN; the replay never pads with them.
    """
    if name == "mlp-stack3":
        pytest.skip("a stack reads its padding, which is the episode's first frame")
    actor = policy(name)
    length = actor.context_length
    valid = torch.arange(length) >= torch.arange(length)[:, None]  # every amount of padding
    obs = torch.randn(length, length, OBS_DIM)
    poisoned = torch.where(valid[..., None], obs, 1e9).requires_grad_()
    obs.requires_grad_()
    clean = actor({"state": obs}, valid, length).mode
    output = actor({"state": poisoned}, valid, length).mode
    assert torch.equal(clean[valid], output[valid])
    output[valid].square().sum().backward()
    assert poisoned.grad is not None and poisoned.grad[~valid].abs().sum() == 0
    assert poisoned.grad[valid].abs().sum() > 0


@pytest.mark.parametrize("name", POLICIES)
def test_the_future_never_matters(name):
    actor = policy(name)
    length = actor.context_length
    obs = torch.randn(2, length, OBS_DIM)
    changed = obs.clone()
    changed[:, -1] += 1
    valid = torch.ones(2, length, dtype=torch.bool)
    before = actor({"state": obs}, valid, length).mode
    after = actor({"state": changed}, valid, length).mode
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_a_carry_is_a_value():
    actor = policy("transformer-c3-l2-residual")
    obs = {"state": torch.randn(2, OBS_DIM)}
    _, carry = actor.step(obs, actor.initial_carry(2))
    kept = {key: value.clone() for key, value in carry.items()}
    first, _ = actor.step(obs, carry)
    second, _ = actor.step(obs, carry)
    assert torch.equal(first.mode, second.mode)
    assert all(torch.equal(carry[key], kept[key]) for key in kept)


def test_reset_carry_touches_only_the_started():
    actor = policy("transformer-c3-l2-residual")
    carry = actor.initial_carry(3)
    for _ in range(2):
        _, carry = actor.step({"state": torch.randn(3, OBS_DIM)}, carry)
    fresh = actor.initial_carry(3)
    mixed = reset_carry(carry, fresh, torch.tensor([False, True, False]))
    for key in carry:
        assert torch.equal(mixed[key][1], fresh[key][1])
        assert torch.equal(mixed[key][[0, 2]], carry[key][[0, 2]])
