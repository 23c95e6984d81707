"""Where cloning takes its windows and labels from, and what that costs."""

import copy
from dataclasses import replace

import pytest
import torch

from slipstream.errors import SlipstreamError
from slipstream.replay import ReplayBuffer
from slipstream.stages.frames import SingleEnv
from slipstream.stages.imitation import CloningConfig
from tests.stages import pictures
from tests.stages.teams import CONFIG, make_team


def make_imitation(**fields):
    team, _, stage = make_team(cloning=replace(CONFIG.cloning, **fields))
    assert stage.imitation is not None
    return team, stage.imitation


def error_of(team):
    """Mean squared difference of both actors on windows of the replay."""
    batch = team.replay.sample(200, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        student = team.actors["transformer"](batch.obs, batch.obs_valid).mode
        teacher = team.actors["accelerator"](batch.obs, batch.obs_valid).mode
    return float((student - teacher).square().mean())


def test_relabelling_takes_no_env_step_and_makes_them_alike():
    team, imitation = make_imitation(burst=150, lr=1e-2)
    before = error_of(team)
    imitation.extra_env = SingleEnv(lambda: pytest.fail("relabelling needs no environment"))
    assert imitation.prepare_check()[0] == 0
    assert imitation.step(0, 40)[0] == 0
    assert error_of(team) < 0.1 * before


def test_relabelling_asks_the_present_teacher():
    team, imitation = make_imitation()
    batch = team.replay.sample(8, 3)
    before = imitation._label(batch)
    with torch.no_grad():
        for parameter in team.actors["accelerator"].parameters():
            parameter.add_(0.5)
    after = imitation._label(batch)
    assert not torch.allclose(before.mode, after.mode)
    assert not after.mode.requires_grad


def test_stored_actions_are_labels():
    team, imitation = make_imitation(source="stored")
    batch = team.replay.sample(8, 3)
    assert torch.equal(imitation._label(batch), batch.action[:, -1:])
    assert imitation.prepare_check()[0] == 0
    assert imitation.cloning.num_updates == 2


def test_episodes_are_run_and_counted():
    _, imitation = make_imitation(source="episodes", episodes=5, episodes_every=100)
    assert imitation.step(0, 99) == (0, {})
    assert imitation.update() == {}  # nothing to learn from yet
    num_steps, metrics = imitation.step(99, 100)
    assert num_steps == 5 * 4  # an episode of the probe takes 4 steps
    assert imitation.extra.num_transitions() == 20 and "loss" in metrics
    assert imitation.cloning.num_updates == 1  # one epoch of 20 transitions in batches of 16
    assert imitation.step(100, 199)[0] == 0
    assert imitation.step(199, 200)[0] == 20
    assert imitation.extra.num_transitions() == 40


def test_an_epoch_goes_through_every_collected_step():
    _, imitation = make_imitation(source="episodes", episodes=20, episodes_every=100)
    imitation.step(99, 100)
    assert imitation.cloning.num_updates == 20 * 4 // 16


def test_episodes_are_those_of_the_teacher_without_noise():
    team, imitation = make_imitation(source="episodes", episodes=3, episodes_every=10)
    imitation.step(9, 10)
    batch = imitation.extra.sample(50, 1)
    with torch.no_grad():
        action = team.actors["accelerator"](batch.obs, batch.obs_valid).mode
    torch.testing.assert_close(batch.action, action)


def test_own_episodes_are_those_of_the_student_and_counted():
    team, imitation = make_imitation(own_episodes=3, burst=0)
    num_steps, _ = imitation.prepare_check()
    assert num_steps == 3 * 4 == imitation.extra.num_transitions()
    batch = imitation.extra.sample(50, 3)
    with torch.no_grad():
        own = team.actors["transformer"](batch.obs, batch.obs_valid).mode
        teacher = team.actors["accelerator"](batch.obs, batch.obs_valid)
    torch.testing.assert_close(batch.action[:, -1:], own)
    torch.testing.assert_close(imitation._label(batch).mode, teacher.mode)


def test_half_of_the_updates_see_own_episodes(monkeypatch):
    _, imitation = make_imitation(own_episodes=2, burst=10)
    drawn = []
    for name in ("replay", "extra"):
        buffer = getattr(imitation, name)

        def sample(*args, buffer=buffer, name=name, original=buffer.sample, **kwargs):
            drawn.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(buffer, "sample", sample)
    imitation.prepare_check()
    # An untaught student is cloned first: its own episodes would be nowhere in particular.
    assert drawn[:10] == ["replay"] * 10
    assert drawn[10:].count("extra") == drawn[10:].count("replay") == 5
    drawn.clear()
    imitation.prepare_check()
    assert drawn.count("extra") == drawn.count("replay") == 5


def test_an_empty_source_leaves_the_updates_to_the_other():
    _, imitation = make_imitation(own_episodes=2, burst=10)
    imitation._collect(imitation.student, 2, steps_left=8)
    imitation.replay = ReplayBuffer(imitation.extra.spec, 10)
    for _ in range(3):
        assert imitation.update()
    assert imitation.cloning.num_updates == 3


def test_episodes_are_there_for_the_first_burst():
    _, imitation = make_imitation(source="episodes", episodes=5, episodes_every=100, burst=3)
    num_steps, metrics = imitation.prepare_check()
    assert num_steps == 5 * 4 == imitation.extra.num_transitions()
    assert "loss" in metrics and imitation.cloning.num_updates == 3
    assert imitation.prepare_check()[0] == 0  # from now on they come at their times
    assert imitation.step(99, 100)[0] == 20


def test_own_episodes_come_behind_the_teachers():
    _, imitation = make_imitation(source="episodes", episodes=5, own_episodes=2, burst=3)
    assert imitation.prepare_check()[0] == (5 + 2) * 4 == imitation.extra.num_transitions()
    assert imitation.cloning.num_updates == 2 * 3


@pytest.mark.parametrize("fields", [{"own_episodes": 2}, {"source": "episodes"}])
def test_images_of_extra_episodes_are_as_many_as_are_said(fields):
    cloning = replace(CONFIG.cloning, frames=40, **fields)
    assert pictures.make_team((), cloning=cloning)[0].holdings["extra"].capacity == 40
    assert make_team(cloning=cloning)[0].holdings["extra"].capacity == 500


def test_own_episodes_see_new_starts_each_time():
    _, imitation = make_imitation(source="episodes", episodes=8, episodes_every=10)
    imitation.step(9, 10)
    first = imitation.extra.state_dict()["rows"]["obs.state"][0, :, 0].clone()
    imitation.step(19, 20)
    second = imitation.extra.state_dict()["rows"]["obs.state"][0, len(first) :, 0]
    assert not torch.equal(first[:30], second[:30])  # the cues


@pytest.mark.parametrize(("every", "expected"), [(20, 2), (10, 4), (0, 0), (50, 0)])
def test_thin_updates_come_every_so_many_steps(every, expected):
    _, imitation = make_imitation(every=every)
    for now in range(1, 48):
        imitation.step(now - 1, now)
    assert imitation.cloning.num_updates == expected
    imitation.step(47, 48)


def test_several_envs_at_once_miss_no_thin_update():
    _, imitation = make_imitation(every=5)
    for now in range(12, 61, 12):
        imitation.step(now - 12, now)
    assert imitation.cloning.num_updates == 12


def test_goes_on_after_saving_as_if_never_saved():
    fields = {"source": "episodes", "episodes": 3, "episodes_every": 10}
    team, whole = make_imitation(**fields)
    whole.step(9, 10)
    saved = copy.deepcopy((team.state_dict(), whole.state_dict(), torch.get_rng_state()))
    whole.step(19, 20)
    other, resumed = make_imitation(**fields)
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    resumed.step(19, 20)
    for one, two in zip(
        team.actors["transformer"].parameters(),
        other.actors["transformer"].parameters(),
        strict=True,
    ):
        assert torch.equal(one, two)
    assert whole.extra.num_transitions() == resumed.extra.num_transitions()


@pytest.mark.parametrize(
    "fields",
    [
        {"every": -1},
        {"burst": -1},
        {"own_episodes": -1},
        {"batch_size": 0},
        {"episodes": 0},
        {"episodes_every": 0},
        {"lr": -1.0},
    ],
)
def test_impossible_cloning_is_refused(fields):
    name, value = next(iter(fields.items()))
    with pytest.raises(SlipstreamError, match=rf"cloning\.{name} is {value}"):
        CloningConfig(**fields)


def test_cloning_that_never_makes_an_update_is_refused():
    with pytest.raises(SlipstreamError, match=r"cloning\.every and cloning\.burst are both 0"):
        CloningConfig(every=0, burst=0)
    CloningConfig(source="episodes", every=0, burst=0)
    CloningConfig(enabled=False, every=0, burst=0)


def test_closing_twice_does_no_harm():
    team, imitation = make_imitation(source="episodes", episodes=1, episodes_every=10)
    team.close()
    imitation.step(9, 10)
    team.close()
    team.close()
