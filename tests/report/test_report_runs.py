import json

import pytest

from slipstream.errors import SlipstreamError
from slipstream.report.html import write_report
from slipstream.report.runs import group_runs, load_run, load_runs
from tests.report.sample_runs import config_of, sample_lines, sample_runs, write_folder

LINE = {"step": 10, "stage": "accelerate", "wall_seconds": 2.0, "eval/transformer/return": 5.0}


def test_a_torn_last_line_is_left_out(tmp_path):
    whole = load_run(write_folder(tmp_path / "a", config_of(0), [LINE]))
    torn = load_run(write_folder(tmp_path / "b", config_of(0), [LINE], torn='{"step": 20, "st'))
    assert torn.lines == whole.lines == [LINE]


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    folder = write_folder(tmp_path / "a", config_of(0), [LINE, LINE])
    text = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join([text[0], "{broken", text[1]]) + "\n")
    with pytest.raises(SlipstreamError, match="line 2 is no metrics line"):
        load_run(folder)


@pytest.mark.parametrize("missing", ["config.json", "metrics.jsonl"])
def test_a_folder_that_is_no_run_says_what_is_missing(tmp_path, missing):
    folder = write_folder(tmp_path / "a", config_of(0), [LINE])
    (folder / missing).unlink()
    with pytest.raises(SlipstreamError, match=f"no run folder: {missing} is missing"):
        load_run(folder)


def test_an_empty_log_and_a_broken_config_are_clear_errors(tmp_path):
    empty = write_folder(tmp_path / "a", config_of(0), [])
    with pytest.raises(SlipstreamError, match="is empty"):
        load_run(empty)
    broken = write_folder(tmp_path / "b", config_of(0), [LINE])
    (broken / "config.json").write_text("{")
    with pytest.raises(SlipstreamError, match="cannot read"):
        load_run(broken)


def test_runs_below_a_folder_are_found_once(tmp_path):
    paths = sample_runs(tmp_path)
    # A policy folder has a config.json too, and is no run.
    policy = paths[0] / "checkpoints" / "100" / "policy"
    policy.mkdir(parents=True)
    (policy / "config.json").write_text("{}")
    assert [run.path for run in load_runs([tmp_path, paths[1]])] == paths
    with pytest.raises(SlipstreamError, match="no run folder at"):
        load_runs([tmp_path / "nowhere"])
    (tmp_path / "void").mkdir()
    with pytest.raises(SlipstreamError, match="is no run and holds none"):
        load_runs([tmp_path / "void"])
    with pytest.raises(SlipstreamError, match="no run folder was given"):
        load_runs([])


def test_below_a_folder_a_run_that_measured_nothing_is_passed_over(tmp_path):
    write_folder(tmp_path / "failed", config_of(0), [])
    good = write_folder(tmp_path / "good", config_of(1), [LINE])
    assert [run.path for run in load_runs([tmp_path])] == [good]
    with pytest.raises(SlipstreamError, match="is empty"):
        load_runs([tmp_path / "failed"])


def test_a_report_that_cannot_be_written_is_a_clear_error(tmp_path):
    run = write_folder(tmp_path / "run", config_of(0), [LINE])
    (tmp_path / "file").write_text("")
    with pytest.raises(SlipstreamError, match=r"cannot write .*file.*; choose another place"):
        write_report([run], tmp_path / "file" / "report.html")


def test_series_skip_nulls_and_carry_the_wall_clock(tmp_path):
    lines = [
        {"step": 1, "stage": "online", "wall_seconds": 3.0, "train/q": 1.0},
        {"step": 2, "stage": "online", "train/q": None},
        {"step": 4, "stage": "online", "train/q": 2.0},
    ]
    series = load_run(write_folder(tmp_path / "a", config_of(0), lines)).series("train/q")
    assert series.step.tolist() == [1, 4]
    assert series.wall_seconds.tolist() == [3.0, 3.0]
    assert series.value.tolist() == [1.0, 2.0]


def test_seeds_are_grouped_and_different_settings_are_not(tmp_path):
    def run(name, seed, **changes):
        return load_run(write_folder(tmp_path / name, config_of(seed, **changes), [LINE]))

    runs = [run("b", 1), run("a", 0), run("c", 0, gamma=0.9), run("d", 0, preset="scratch")]
    groups = group_runs(runs)
    assert [(group.name, [run.seed for run in group.runs]) for group in groups] == [
        ("default (gamma=None)", [0, 1]),
        ("default (gamma=0.9)", [0]),
        ("scratch", [0]),
    ]


def test_a_seed_that_was_run_twice_counts_once(tmp_path):
    def run(name, seed, step):
        return load_run(write_folder(tmp_path / name, config_of(seed), [{**LINE, "step": step}]))

    runs = [run("old", 0, 9), run("new", 0, 9), run("short", 0, 5), run("other", 1, 5)]
    (group,) = group_runs(runs)
    assert [run.path.name for run in group.runs] == ["old", "other"]
    assert {run.path.name for run in group.repeats} == {"new", "short"}
    page = write_report([run.path for run in runs], tmp_path / "report").read_text()
    assert "repeats seed 0 and is passed over" in page


def test_the_sample_is_what_a_run_writes(tmp_path):
    for line in sample_lines(0):
        assert json.loads(json.dumps(line)) == line
        assert {"step", "stage"} <= set(line)
