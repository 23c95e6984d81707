import pytest

from slipstream.report.runs import group_runs, load_run
from slipstream.report.summary import compare, duration, judge, number, signed, summarise_group
from tests.report.sample_runs import config_of, write_folder


def group(folder, outcomes, *, random=-10.0, end=100, gap=None, stuck=0.0, **changes):
    """Seeds that switch at step 40: (accelerator at the switch, transformer at the end)."""
    runs = []
    for seed, (accelerator, transformer) in enumerate(outcomes):
        online = {"step": end, "stage": "online", "wall_seconds": 30.0, "eval_steps": 700}
        lines = [
            {"step": 0, "stage": "accelerate", "wall_seconds": 1.0, "eval/random/return": random},
            # An evaluation before the switch that must not be taken for the one at the switch.
            {"step": 20, "stage": "accelerate", "eval/accelerator/return": -999.0},
            {
                "step": 40,
                "stage": "accelerate",
                "wall_seconds": 12.0,
                "eval/accelerator/return": accelerator,
                "eval/transformer/return": accelerator - 1.0,
            },
            *(
                []
                if gap is None
                else [{"step": 40, "switch/imitation_gap": gap, "switch/stuck": stuck}]
            ),
            {"step": 40, "stage": "accelerate", "event": "switch", "reason": "matched"},
            {**online, "eval/transformer/return": transformer},
            # The accelerator may be evaluated on: what it does later is not what was cloned.
            {**online, "eval/accelerator/return": 12345.0},
        ]
        config = config_of(seed, total_steps=100, **changes)
        runs.append(load_run(write_folder(folder / f"seed{seed}", config, lines)))
    (one,) = group_runs(runs)
    return summarise_group(one)


def test_headline_numbers_by_hand(tmp_path):
    summary = group(tmp_path, [(100.0, 160.0), (200.0, 210.0), (300.0, 350.0)])
    assert summary.transformer is not None
    assert summary.accelerator is not None
    assert summary.gain is not None
    assert summary.random is not None
    assert summary.transformer.value == pytest.approx(240.0)
    assert summary.accelerator.value == pytest.approx(200.0)
    assert summary.gain.value == pytest.approx(40.0)
    assert summary.random.value == pytest.approx(-10.0)
    first = summary.runs[0]
    assert first.steps == {"accelerate": 40, "online": 60}
    assert first.switch_seconds == pytest.approx(12.0)
    assert first.run.wall_seconds == pytest.approx(30.0)
    assert first.run.eval_steps == 700
    assert first.best_transformer == pytest.approx(160.0)


def test_a_win_is_told_with_its_certainty(tmp_path):
    verdict = judge(group(tmp_path, [(100.0, 160.0), (200.0, 240.0), (300.0, 350.0)]))
    assert verdict.tone == "good"
    assert verdict.headline == (
        "The transformer ended above the accelerator it was cloned from: 250.0 against 200.0 at "
        "the switch, above it on 3 of 3 seeds."
    )
    assert verdict.details[0].startswith("The 95 % interval of the difference is +40.0 to +60.0")


def test_a_loss_is_told_in_plain_words(tmp_path):
    verdict = judge(group(tmp_path, [(100.0, 60.0)]))
    assert verdict.tone == "bad"
    assert "ended below the accelerator it was cloned from: 60.0 against 100.0" in verdict.headline
    assert verdict.details == ("One seed: nothing is known of the spread between seeds.",)


def test_a_return_of_zero_counts(tmp_path):
    verdict = judge(group(tmp_path, [(-5.0, 0.0)]))
    assert "0 against −5.00" in verdict.headline  # noqa: RUF001


def test_an_undecided_difference_is_called_undecided(tmp_path):
    verdict = judge(group(tmp_path, [(100.0, 160.0), (200.0, 140.0), (300.0, 310.0)]))
    assert "above it on 2 of 3 seeds" in verdict.headline
    assert "includes zero: 3 seeds do not decide it" in verdict.details[0]


def test_worse_than_random_and_unfinished_are_told(tmp_path):
    summary = group(tmp_path, [(100.0, 60.0)], random=80.0, end=90)
    details = " ".join(judge(summary).details)
    assert "Seed 0 stands at step 90 of 100" in details
    assert "no better than random actions (60.0 against 80.0)" in details


def test_beating_an_accelerator_that_is_no_better_than_random_is_no_win(tmp_path):
    verdict = judge(group(tmp_path, [(100.0, 160.0)], random=120.0))
    assert verdict.tone == "neutral"
    assert "no better than random actions (120.0)" in verdict.details[-1]


def test_a_run_that_never_switched_says_so(tmp_path):
    lines = [
        {
            "step": 100,
            "stage": "accelerate",
            "eval/accelerator/return": 7.0,
            "eval/transformer/return": 6.0,
        }
    ]
    run = load_run(write_folder(tmp_path / "a", config_of(0, total_steps=100), lines))
    summary = summarise_group(group_runs([run])[0])
    verdict = judge(summary)
    assert "No run has switched" in verdict.headline
    assert summary.gain is None
    assert summary.runs[0].steps == {"accelerate": 100}


def test_a_run_without_evaluation_says_so(tmp_path):
    lines = [{"step": 5, "stage": "online", "train/q": 1.0}]
    run = load_run(write_folder(tmp_path / "a", config_of(0, stages=["online"]), lines))
    verdict = judge(summarise_group(group_runs([run])[0]))
    assert verdict.headline == "There is no evaluation of the policy yet."


def test_a_comparison_names_the_winner_even_if_it_is_not_ours(tmp_path):
    ours = group(tmp_path / "ours", [(100.0, 160.0), (110.0, 170.0)])
    lines = [{"step": 100, "stage": "accelerate", "eval/accelerator/return": 500.0}]
    runs = [
        load_run(
            write_folder(
                tmp_path / f"alone{seed}",
                config_of(seed, total_steps=100, preset="alone", stages=["accelerate"]),
                lines,
            )
        )
        for seed in range(2)
    ]
    verdict = compare([ours, summarise_group(group_runs(runs)[0])])
    assert verdict.tone == "bad"
    assert verdict.headline.startswith("alone (accelerator alone) ended highest: 500.0")
    assert verdict.details == ("The two-stage run does not win here.",)


def test_numbers_and_times_as_a_reader_wants_them():
    assert number(4413.4) == "4,413"
    assert number(-0.1267) == "−0.127"  # noqa: RUF001
    assert number(231.94, like=4413.0) == "232"
    assert signed(12.34) == "+12.3"
    assert duration(42.2) == "42 s"
    assert duration(725) == "12 min 5 s"
    assert duration(3780) == "1 h 3 min"


def test_what_could_not_be_imitated_is_told(tmp_path):
    told = judge(group(tmp_path / "a", [(100.0, 160.0)], gap=0.38)).details
    assert "The clone lacked 38% of what the accelerator had gained over random actions." in told
    told = judge(group(tmp_path / "b", [(100.0, 160.0)], gap=0.38, privileged=["accelerator"]))
    assert any("privileged" in detail for detail in told.details)
    assert not any("no longer" in detail for detail in told.details)
    assert not any(
        "lacked" in d for d in judge(group(tmp_path / "c", [(1.0, 2.0)], gap=0.1)).details
    )


def test_a_clone_that_more_cloning_does_not_help_is_told(tmp_path):
    told = judge(group(tmp_path, [(1.0, 2.0), (2.0, 3.0)], gap=0.38, stuck=1.0)).details
    assert (
        "On 2 of 2 seeds more cloning no longer brought it nearer: the accelerator may act on what "
        "the transformer cannot see."
    ) in told


def test_why_a_run_never_switched_is_told(tmp_path):
    checks = [
        {"step": step, "eval/transformer/return": 6.0, "switch/reason": reason}
        for step, reason in ((50, "before 70% of all steps"), (100, "clone at 0.50"))
    ]
    run = load_run(write_folder(tmp_path / "a", config_of(0, total_steps=100), checks))
    told = judge(summarise_group(group_runs([run])[0])).details
    assert "Seed 0 never switched: clone at 0.50." in told
