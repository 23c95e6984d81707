"""The switch rules on hand-made histories."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipstream.errors import SlipstreamError
from slipstream.stages.online import OnlineConfig, must_roll_back
from slipstream.stages.switch import (
    RULES,
    Check,
    SwitchConfig,
    check_matches,
    decide,
    imitation_gap,
    seems_inimitable,
)

RANDOM = (-10.0, 0.0, 10.0, 0.0, 0.0)
GOOD = (980.0, 1000.0, 1020.0, 990.0, 1010.0)
POOR = (80.0, 100.0, 120.0, 90.0, 110.0)


def check(step=600, accelerator=GOOD, transformer=GOOD, random=RANDOM):
    return Check(step, tuple(random), tuple(accelerator), tuple(transformer), 0.0)


def scaled(returns, factor):
    return tuple(factor * value for value in returns)


def test_a_clone_that_equals_a_good_accelerator_matches():
    decision = check_matches(SwitchConfig(), check())
    assert decision.switch and "1.00" in decision.reason


@pytest.mark.parametrize("ratio", [0.9, 0.5, 0.0, -1.0])
def test_a_clone_surely_below_does_not_match(ratio):
    # 0.9 is within twice the allowed gap, but every episode is worse: no noise excuses that.
    decision = check_matches(SwitchConfig(), check(transformer=scaled(GOOD, ratio)))
    assert not decision.switch and f"{ratio:.2f}" in decision.reason


def test_noise_excuses_a_small_gap_but_no_large_one():
    accelerator = (400.0, 1600.0, 500.0, 1500.0, 1000.0)
    slightly_off = (1500.0, 500.0, 1400.0, 400.0, 850.0)  # ratio 0.93, differences all over
    assert check_matches(
        SwitchConfig(), check(accelerator=accelerator, transformer=slightly_off)
    ).switch
    far_off = (1500.0, 500.0, 1000.0, 400.0, 600.0)  # ratio 0.8
    assert not check_matches(
        SwitchConfig(), check(accelerator=accelerator, transformer=far_off)
    ).switch


def test_a_clone_above_its_accelerator_matches():
    assert check_matches(SwitchConfig(), check(transformer=scaled(GOOD, 1.5))).switch


def test_an_accelerator_within_noise_of_random_never_matches():
    wild = (-500.0, 600.0, -400.0, 500.0, 100.0)
    decision = check_matches(SwitchConfig(), check(accelerator=wild, transformer=wild))
    assert not decision.switch and "sigma" in decision.reason


def test_one_episode_tells_too_little():
    decision = check_matches(SwitchConfig(), check(600, (100.0,), (100.0,), (0.0,)))
    assert not decision.switch and "sigma" in decision.reason
    without_noise = SwitchConfig(sigmas=0.0)
    assert check_matches(without_noise, check(600, (100.0,), (100.0,), (0.0,))).switch


def test_negative_returns_work_as_positive_ones():
    # Pendulum: all returns below zero.
    random, good = (-1300.0, -1200.0, -1250.0), (-150.0, -160.0, -140.0)
    assert check_matches(SwitchConfig(), check(300, good, good, random)).switch
    assert not check_matches(
        SwitchConfig(), check(300, good, (-900.0, -800.0, -950.0), random)
    ).switch


def test_matched_asks_for_consecutive_checks():
    config, bad = SwitchConfig(consecutive=2), check(transformer=POOR)
    rule = RULES["matched"]
    assert not rule(config, [check()]).switch
    assert rule(config, [check(), check()]).switch
    assert rule(config, [bad, check(), check()]).switch
    assert not rule(config, [check(), check(), bad]).switch
    assert not rule(config, [check(), bad, check()]).switch
    assert rule(replace(config, consecutive=1), [bad, check()]).switch


@pytest.mark.parametrize("rule", ["matched", "plateau"])
def test_a_match_counts_from_the_earliest_step_on(rule):
    config = SwitchConfig(rule=rule, earliest=0.5)
    early = [check(step) for step in (100, 200, 300, 400, 499)]
    assert RULES[rule](config, early).switch
    decision = decide(config, early, 1000)
    assert not decision.switch and "before 50%" in decision.reason
    assert decide(config, [*early, check(500)], 1000).switch


def test_plateau_waits_until_the_accelerator_stops_improving():
    config, rule = SwitchConfig(rule="plateau", patience=2), RULES["plateau"]
    level = [check(accelerator=scaled(GOOD, f), transformer=scaled(GOOD, f)) for f in (1, 1, 1.01)]
    rising = [
        check(accelerator=scaled(GOOD, f), transformer=scaled(GOOD, f)) for f in (1, 1.1, 1.2)
    ]
    falling = [
        check(accelerator=scaled(GOOD, f), transformer=scaled(GOOD, f)) for f in (1, 0.9, 0.9)
    ]
    assert rule(config, level).switch
    assert not rule(config, rising).switch
    assert rule(config, falling).switch
    assert not rule(config, level[:2]).switch  # too few to tell
    assert not rule(config, [*level[:2], check(transformer=POOR)]).switch  # level, but no match


def test_at_step_fires_at_the_step_alone():
    config = SwitchConfig(rule="at_step", latest=0.5)
    assert not decide(config, [check(100), check(499)], 1000).switch
    assert decide(config, [check(500, transformer=POOR)], 1000).switch


def test_at_step_may_come_before_the_earliest_step_of_the_other_rules():
    config = SwitchConfig(rule="at_step", latest=0.2)
    assert not decide(config, [check(199)], 1000).switch
    assert decide(config, [check(200)], 1000).switch


returns = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8)
rules = st.sampled_from(list(RULES))


@st.composite
def histories(draw):
    episodes = draw(st.integers(1, 6))
    one = st.tuples(*[st.floats(-1e4, 1e4)] * episodes)
    random = draw(one)
    steps = sorted(draw(st.lists(st.integers(0, 1000), min_size=1, max_size=6, unique=True)))
    return [check(step, draw(one), draw(one), random) for step in steps]


@st.composite
def configs(draw):
    earliest, latest = sorted((draw(st.floats(0, 1)), draw(st.floats(0.01, 1))))
    return SwitchConfig(
        rule=draw(rules),
        earliest=earliest,
        latest=latest,
        consecutive=draw(st.integers(1, 3)),
        patience=draw(st.integers(1, 3)),
        sigmas=draw(st.floats(0, 5)),
    )


@settings(max_examples=150, deadline=None)
@given(configs(), histories())
def test_never_before_the_earliest_always_by_the_latest(config, history):
    decision = decide(config, history, 1000)
    step = history[-1].step
    if step >= config.latest * 1000:
        assert decision.switch
    elif step < config.earliest * 1000 or config.rule == "at_step":
        assert not decision.switch
    else:
        assert decision.switch == RULES[config.rule](config, history).switch
    assert decision.reason
    assert decide(config, history, 1000) == decision  # a pure function


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8),
    st.floats(0, 1e3),
    st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8),
)
def test_an_accelerator_no_better_than_random_never_matches(random, loss, clone):
    accelerator = [value - loss for value in random]
    for rule in ("matched", "plateau"):
        config = SwitchConfig(rule=rule, consecutive=1, patience=1)
        history = [check(600, accelerator, accelerator, random)] * 4
        assert not decide(config, history, 1000).switch
    n = min(len(clone), len(random))
    one = check(600, accelerator[:n], clone[:n], random[:n])
    assert not check_matches(SwitchConfig(), one).switch or (
        sum(accelerator[:n]) > sum(random[:n])  # rounding, where the loss is next to nothing
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"earliest": -0.1},
        {"earliest": 1.1},
        {"latest": 0.0},
        {"latest": 1.5},
        {"earliest": 0.8, "latest": 0.7},
        {"rule": "nonesuch"},
        {"consecutive": 0},
        {"patience": 0},
    ],
)
def test_impossible_rules_are_refused(fields):
    with pytest.raises(SlipstreamError, match=str(next(iter(fields.values())))):
        SwitchConfig(**fields)


def roll_back(returns, best=100.0, random=0.0, **fields):
    return must_roll_back(OnlineConfig(**fields), returns, best, random)


def test_the_guard_goes_back_after_enough_poor_checks_in_a_row():
    assert roll_back([90, 40, 49])
    assert not roll_back([90, 40, 51])
    assert not roll_back([40])
    assert not roll_back([40, 60, 40])
    assert roll_back([40], guard_checks=1)
    assert not roll_back([90, 40, 49], guard_fraction=0.3)


def test_the_guard_measures_from_random():
    assert roll_back([-900.0, -900.0], best=-150.0, random=-1200.0)  # half way is -675
    assert not roll_back([-600.0, -600.0], best=-150.0, random=-1200.0)
    assert not roll_back([0.0, 0.0], best=-5.0, random=10.0)  # nothing better than random to keep


def test_the_guard_can_be_off():
    assert not roll_back([-1e9, -1e9], guard_fraction=0.0)


@pytest.mark.parametrize(
    "fields",
    [{"carry_rows": -1}, {"guard_fraction": 1.0}, {"guard_fraction": -0.1}, {"guard_checks": 0}],
)
def test_impossible_online_settings_are_refused(fields):
    with pytest.raises(SlipstreamError, match=next(iter(fields))):
        OnlineConfig(**fields)


def test_the_gap_is_what_the_clone_lacks_of_the_rise():
    gap = imitation_gap(check(transformer=scaled(GOOD, 0.6)))
    assert gap == pytest.approx(0.4)
    above = imitation_gap(check(transformer=scaled(GOOD, 1.5)))
    assert above == pytest.approx(-0.5)
    assert imitation_gap(check(accelerator=scaled(GOOD, -1.0))) is None


@pytest.mark.parametrize(
    ("ratio", "burst", "expected"),
    [
        (0.5, (0.20, 0.19), True),  # short of its teacher, and nothing more is learnt
        (0.5, (0.20, 0.05), False),  # still learning
        (1.0, (0.01, 0.01), False),  # nothing left to learn
        (0.5, None, False),
    ],
)
def test_a_clone_that_learns_nothing_more_is_told(ratio, burst, expected):
    seen = replace(check(transformer=scaled(GOOD, ratio)), burst=burst)
    assert seems_inimitable(SwitchConfig(), seen) is expected
    assert ("cannot see" in check_matches(SwitchConfig(), seen).reason) is expected


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("step", [100, 1000])
def test_every_rule_says_what_the_clone_lacks(rule, step):
    """Before the first look, between, and where the switch comes whatever the rule says."""
    stuck = replace(check(step, transformer=scaled(GOOD, 0.5)), burst=(0.20, 0.19))
    decision = decide(SwitchConfig(rule=rule), [stuck], 1000)
    assert decision.switch == (step == 1000)
    assert "clone at 0.50 of the accelerator" in decision.reason
    assert "cannot see" in decision.reason
    improving = [check(700), replace(stuck, step=750, accelerator=scaled(GOOD, 2.0))]
    assert "cannot see" in decide(SwitchConfig(rule=rule, patience=1), improving, 1000).reason


def test_a_clone_that_learns_nothing_more_is_told_where_noise_hides_the_rise():
    noisy = check(accelerator=(0.0, 2000.0), transformer=(0.0, 10.0), random=(0.0, 0.0))
    reason = check_matches(SwitchConfig(), replace(noisy, burst=(0.20, 0.19))).reason
    assert "sigma" in reason and "cannot see" in reason


def test_a_match_that_is_not_confirmed_yet_says_so():
    history = [check(700, transformer=POOR), check(720)]
    reason = decide(SwitchConfig(), history, 1000).reason
    assert reason == "clone at 1.00 of the accelerator, but not on 2 checks in a row"
