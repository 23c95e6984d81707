"""What the referee makes of evaluations: best, hand-over, way back."""

from types import SimpleNamespace
from typing import Any

import pytest

from slipstream.config import EvalConfig, RunConfig
from slipstream.judging.evaluation import Evaluation, _reported
from slipstream.judging.referee import Referee
from slipstream.stages.switch import SwitchConfig

BOTH: Any = SimpleNamespace(actors={"accelerator": 1, "transformer": 2}, product="transformer")


def evaluation(return_: float, successes: int | None = None) -> Evaluation:
    """Four episodes of one return, so many of them with success."""
    flags = None if successes is None else tuple(i < successes for i in range(4))
    return Evaluation((return_,) * 4, (50,) * 4, flags, 200)


@pytest.fixture
def logged() -> list[dict[str, Any]]:
    """The metrics of all looks."""
    return []


@pytest.fixture
def look(monkeypatch, logged):
    """One look at the actors, in the order random (first look only), accelerator, transformer."""
    queue: list[Evaluation] = []
    monkeypatch.setattr("slipstream.judging.referee.evaluate", lambda *_: queue.pop(0))
    env: Any = SimpleNamespace(close=lambda: None)
    config = RunConfig(
        "Pendulum-v1",
        total_steps=100,
        learning_starts=0,
        eval=EvalConfig(episodes=4),
        switch=SwitchConfig(earliest=0.0, consecutive=1),
    )
    referee = Referee(config, lambda _: env)

    def look(step: int, stage: str, *found: Evaluation, cloned: bool = True) -> Any:
        nonlocal referee
        resumed = Referee(config, lambda _: env)
        resumed.load_state_dict(referee.state_dict())
        referee = resumed
        queue.extend(found)
        verdict = referee.look(step, stage, BOTH, logged.append, cloned=cloned)
        assert not queue
        return verdict

    return look


def test_success_counts_more_than_the_return(look):
    start = look(0, "accelerate", evaluation(3, 0), evaluation(2, 0), evaluation(2, 0))
    assert start.best
    near = look(10, "accelerate", evaluation(28, 0), evaluation(31, 0))
    assert near.best  # no success yet: the return decides
    assert near.switch is None  # nor is there an accelerator worth cloning
    matched = look(20, "accelerate", evaluation(12, 4), evaluation(9, 4))
    assert matched.best
    assert matched.switch is not None
    for step in (30, 40, 50):  # quick success, low return
        assert look(step, "online", evaluation(4, 4)).rollback is None
    assert not look(60, "online", evaluation(31, 1)).best
    rollback = look(70, "online", evaluation(31, 1)).rollback
    assert rollback is not None
    assert "shares of success (0.25 now)" in rollback
    assert "the best (1)" in rollback


def test_where_no_success_is_reported_the_return_counts(look):
    look(0, "accelerate", evaluation(0), evaluation(1), evaluation(0))
    assert look(10, "accelerate", evaluation(100), evaluation(50)).switch is None
    assert look(20, "accelerate", evaluation(100), evaluation(99)).switch is not None
    assert look(30, "online", evaluation(100)).best
    assert look(40, "online", evaluation(49)).rollback is None
    rollback = look(50, "online", evaluation(40)).rollback
    assert rollback is not None
    assert "returns (40 now)" in rollback


def reporting_success_alone(return_: float, successes: int) -> Evaluation:
    """Four episodes in an environment that says nothing of failure."""
    return evaluation(return_, successes or None)


def test_where_success_alone_is_reported_all_is_judged_by_it_from_the_first_report_on(look, logged):
    look(0, "accelerate", evaluation(0), evaluation(1), evaluation(0))
    near = look(10, "accelerate", evaluation(90), evaluation(81))
    assert near.best and near.switch is None
    matched = look(20, "accelerate", reporting_success_alone(95, 4), reporting_success_alone(81, 4))
    assert matched.best and matched.switch is not None
    # The first looks, too, count as failures now: the gap is none, and stage 2 is not put back.
    assert logged[-1]["switch/imitation_gap"] == 0.0
    assert look(30, "online", reporting_success_alone(98, 4)).best
    assert look(40, "online", reporting_success_alone(98, 4)).rollback is None
    assert look(50, "online", reporting_success_alone(200, 0)).rollback is None
    rollback = look(60, "online", reporting_success_alone(200, 0)).rollback
    assert rollback is not None and "shares of success (0 now)" in rollback
    shares = [line["eval/transformer/success_once"] for line in logged[-2:]]
    assert shares == [0.0, 0.0]


def test_scores_before_the_first_report_of_success_are_forgotten_with_their_unit(look):
    look(0, "accelerate", evaluation(0), evaluation(1), evaluation(0))
    for step in (10, 20):
        look(step, "online", evaluation(81))
    assert look(30, "online", reporting_success_alone(20, 1)).best
    assert look(40, "online", reporting_success_alone(98, 4)).rollback is None
    assert look(50, "online", reporting_success_alone(98, 4)).rollback is None


def test_an_episode_without_a_report_failed_where_another_reported():
    assert _reported([True, None, None]) == (True, False, False)
    assert _reported([False, None]) == (False, False)
    assert _reported([None, None]) is None


def test_the_latest_step_ends_stage_1_though_nothing_was_cloned(look):
    look(0, "accelerate", evaluation(0), evaluation(1), cloned=False)
    assert look(40, "accelerate", evaluation(9), cloned=False).switch is None
    switch = look(80, "accelerate", evaluation(10), evaluation(0), cloned=False).switch
    assert switch is not None
    assert "80% of all steps" in switch and "never cloned" in switch


def test_every_check_says_why_it_does_not_switch(look, logged):
    look(0, "accelerate", evaluation(0), evaluation(1), evaluation(0))
    look(10, "accelerate", evaluation(100), evaluation(50))
    assert logged[-1] == {
        "switch/imitation_gap": 0.5,
        "switch/stuck": 0.0,
        "switch/reason": "clone at 0.50 of the accelerator",
    }
