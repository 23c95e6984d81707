"""Windows, stacks and carries."""

import pytest
import torch

from slipstream.networks import common_context
from slipstream.networks.memory import empty_window, push_frame, windows_before
from slipstream.networks.mlp import FrameStack
from tests.networks.policies import OBS_DIM, actor_of, critic_config, critic_of, policy


@pytest.mark.parametrize("length", [1, 2, 4, 9])
@pytest.mark.parametrize("last", [1, 2, 6])
def test_windows_end_at_each_of_the_last_steps(length, last):
    frames = torch.arange(2 * 6.0).view(2, 6, 1) + 100
    valid = torch.tensor([[True] * 6, [False, False, True, True, True, True]])
    windows, seen = windows_before(frames, valid, length, last)
    for b in range(2):
        for i in range(last):
            t = 6 - last + i  # the step that this window ends with
            places = range(t - length + 1, t + 1)
            expected = [frames[b, max(p, 0), 0].item() for p in places if p >= 0 or last > 1]
            holds = [p >= 0 and bool(valid[b, p]) for p in places if p >= 0 or last > 1]
            holds[-1] = holds[-1] or last > 1
            assert windows[b * last + i, :, 0].tolist() == expected
            assert seen[b * last + i].tolist() == holds


def test_a_stack_begins_with_its_first_frame():
    stack = FrameStack(3, 1)
    carry, rows = stack.initial_carry(1), []
    for value in (5.0, 6.0, 7.0, 8.0):
        stacked, carry = stack.step(torch.tensor([[value]]), carry, lambda x: x)
        rows.append(stacked[0].tolist())
    assert rows == [[5, 5, 5], [5, 5, 6], [5, 6, 7], [6, 7, 8]]


def test_a_window_slides():
    carry = empty_window(1, 2, 1, torch.zeros(()))
    for value in (1.0, 2.0, 3.0):
        carry = push_frame(torch.tensor([[value]]), carry)
    assert carry["window"][0, :, 0].tolist() == [2, 3] and carry["valid"].all()


@pytest.mark.parametrize("memory", ["none", "transformer", "lstm"])
def test_values_of_several_steps_are_those_of_each_alone(memory):
    torch.manual_seed(0)
    critic = critic_of(critic_config(memory=memory, frame_stack=3))
    obs, action = {"state": torch.randn(4, 7, OBS_DIM)}, torch.rand(4, 5, 2)
    valid = torch.arange(7) >= torch.tensor([0, 1, 2, 3])[:, None]
    whole = critic(obs, valid, action)
    for i in range(5):
        cut = {"state": obs["state"][:, : 3 + i]}
        alone = critic(cut, valid[:, : 3 + i], action[:, i : i + 1])[..., 0]
        real = valid[:, 2 + i]  # at a padded step there is nothing to compare
        torch.testing.assert_close(whole[:, real, i], alone[:, real])


def test_a_common_context_reaches_as_far_back_as_anyone_needs():
    config = critic_config(frame_stack=4)
    critic, transformer = critic_of(config), actor_of("transformer", config)
    lstm = actor_of("lstm", config)
    assert common_context((critic, transformer), 1) == 4
    assert (lstm.context_length, lstm.loss_steps) == (8, 6)
    assert common_context((lstm, transformer), 6) == 8
    assert common_context((lstm, critic), 6) == 9  # the first of six steps needs three before it


def test_only_what_remembers_counts_as_memory():
    assert policy("mlp-stack3").memory_parameters() == []
    assert critic_of(critic_config()).memory_parameters() == []
    for name in ("lstm-l2", "transformer-c3-l2-residual"):
        actor = policy(name)
        apart = {id(p) for p in actor.memory_parameters()}
        assert {id(p) for p in actor.backbone.memory_parameters()} == apart
        rest = [p for p in actor.parameters() if id(p) not in apart]
        assert len(rest) == len(list(actor.head.parameters()))
