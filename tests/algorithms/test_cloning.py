import copy

import pytest
import torch

from slipstream.algorithms.cloning import Cloning, action_error
from slipstream.networks import BACKBONES
from slipstream.networks.heads import HEADS, Deterministic
from tests.algorithms.batches import random_batch
from tests.networks.policies import actor_of, critic_config, critic_of, policy


def student_and_teacher(head, kind="transformer"):
    teacher = policy("mlp", head)
    torch.manual_seed(4)
    return actor_of(kind, critic_config(), head), teacher


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", BACKBONES)
def test_the_student_comes_to_act_as_its_teacher(kind, head):
    student, teacher = student_and_teacher(head, kind)
    cloning = Cloning(student, 3e-3)
    before = copy.deepcopy(teacher.state_dict())
    errors = []
    for i in range(150):
        batch = random_batch(i, size=64)
        with torch.no_grad():
            label = teacher(batch.obs, batch.obs_valid, 1)
        errors.append(cloning.update(batch, label)["action_error"].item())
    assert sum(errors[-10:]) < 0.2 * sum(errors[:10])
    assert cloning.num_updates == 150
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_a_gaussian_is_cloned_whole():
    student, teacher = student_and_teacher("squashed_gaussian")
    cloning = Cloning(student, 3e-3)
    gaps = []
    for i in range(150):
        batch = random_batch(i, size=64)
        with torch.no_grad():
            label = teacher(batch.obs, batch.obs_valid, 1)
            own = student(batch.obs, batch.obs_valid, 1)
        gaps.append((own.log_std - label.log_std).square().mean().item())
        cloning.update(batch, label)
    assert sum(gaps[-10:]) < 0.5 * sum(gaps[:10])


@pytest.mark.parametrize("head", HEADS)
def test_bare_actions_are_labels_too(head):
    student, _ = student_and_teacher(head)
    batch = random_batch()
    label = batch.action[:, -1:]
    with torch.no_grad():
        mode = student(batch.obs, batch.obs_valid, 1).mode
    metrics = Cloning(student, 1e-3).update(batch, label)
    expected = (mode - label).square().mean()
    torch.testing.assert_close(metrics["action_error"], expected)
    torch.testing.assert_close(metrics["loss"], expected)  # no spread to clone in bare actions


def test_goes_on_after_saving_as_if_never_saved():
    batches = [random_batch(i) for i in range(4)]
    whole, _ = student_and_teacher("deterministic")
    parted = copy.deepcopy(whole)
    cloning = Cloning(whole, 1e-3)
    first, second = Cloning(parted, 1e-3), Cloning(parted, 1e-3)
    for i, batch in enumerate(batches):
        cloning.update(batch, batch.action[:, -1:])
        if i == 2:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        (first if i < 2 else second).update(batch, batch.action[:, -1:])
    assert second.num_updates == 4
    for one, other in zip(whole.parameters(), parted.parameters(), strict=True):
        assert torch.equal(one, other)


def test_action_error_is_by_row():
    one = Deterministic(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    other = Deterministic(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    assert action_error(one, other).tolist() == [0.5, 0.0]


def test_ascent_raises_the_critics_value_and_leaves_the_critic_alone():
    student, teacher = student_and_teacher("deterministic")
    plain, climbing = copy.deepcopy(student), copy.deepcopy(student)
    torch.manual_seed(5)
    critic = critic_of(critic_config())
    before = copy.deepcopy(critic.state_dict())
    learners = {
        "plain": Cloning(plain, 3e-3, critic),
        "climbing": Cloning(climbing, 3e-3, critic, ascent=1.0),
    }
    for i in range(100):
        batch = random_batch(i, size=64)
        with torch.no_grad():
            label = teacher(batch.obs, batch.obs_valid, 1)
        for cloning in learners.values():
            cloning.update(batch, label)
    batch = random_batch(1000, size=256)
    with torch.no_grad():
        values = {
            name: critic(batch.obs, batch.obs_valid, net(batch.obs, batch.obs_valid, 1).mode)[0]
            for name, net in (("plain", plain), ("climbing", climbing))
        }
    assert values["climbing"].mean() > values["plain"].mean()
    assert all(torch.equal(value, before[key]) for key, value in critic.state_dict().items())
