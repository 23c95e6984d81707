"""Trackers beside metrics.jsonl: the same numbers, once each, also over a kill and a resume."""

import importlib.util
import json
import re
import signal
import sqlite3
import struct
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slipstream.cli import main
from slipstream.errors import SlipstreamError
from slipstream.logs.logger import RunLogger
from slipstream.logs.trackers import import_tracker, open_trackers
from slipstream.training import resume, train
from slipstream.training.trainer import Trainer
from tests.tiny_runs import (
    at_step,
    events,
    in_child,
    lines,
    timeless,
    tiny,
    train_until,
)

SHORT = tiny(total_steps=120, switch=replace(tiny().switch, latest=0.5))
CONFIG = {"env_id": "ALE/Pong-v5", "preset": "p", "seed": 3, "env": {"num_envs": 2}}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_CACHE_DIR": str(tmp_path / "wandb-cache"),
        "WANDB_CONFIG_DIR": str(tmp_path / "wandb-config"),
        "WANDB_DATA_DIR": str(tmp_path / "wandb-data"),
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HF_HUB_OFFLINE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)


def wandb_records(run_dir: Path, num_files: int) -> list[list[Any]]:
    """The records of each offline file, once W&B's own process has written them all."""
    until = time.monotonic() + 30
    files: list[list[Any]] = []
    while time.monotonic() < until:
        paths = sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))
        files = [wandb_file(path) for path in paths]
        if len(files) == num_files and all(
            any(r.HasField("exit") for r in records) for records in files
        ):
            break
        time.sleep(0.1)
    return files


def wandb_file(path: Path) -> list[Any]:
    """Read by its format: a log of LevelDB behind 7 bytes, in blocks of 32 KiB."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, at, part, records = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            records.append(pb.Record.FromString(part))
            part = b""
    return records


def wandb_history(records: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            row = {item.nested_key[0] if item.nested_key else item.key: item for item in items}
            rows.append(
                {
                    name: json.loads(item.value_json)
                    for name, item in row.items()
                    if not name.startswith("_")
                }
            )
    return rows


def numbers(run_dir: Path) -> list[dict[str, Any]]:
    """What a tracker should have been given, from the run's own log."""
    rows = [
        {
            name: value
            for name, value in line.items()
            if name == "step" or ("/" in name and isinstance(value, int | float))
        }
        for line in lines(run_dir)
        if "event" not in line
    ]
    return [row for row in rows if len(row) > 1]


def steps_and_names(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["step"], *sorted(row.keys() - {"step"})) for row in rows]


def test_wandb_gets_the_numbers_the_configuration_and_the_name(tmp_path):
    pytest.importorskip("wandb")
    run_dir = train(replace(SHORT, log_to=("wandb",)), tmp_path / "run", show_progress=False)
    (records,) = wandb_records(run_dir, 1)
    assert wandb_history(records) == numbers(run_dir)
    (run,) = [r.run for r in records if r.WhichOneof("record_type") == "run"][:1]
    assert (run.project, run.display_name) == ("slipstream", "Pendulum-v1 default run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["total_steps"] == 120 and config["env"]["max_episode_steps"] == 20
    said = {
        item.key or item.nested_key[0]: json.loads(item.value_json)
        for r in records
        if r.WhichOneof("record_type") == "summary"
        for item in r.summary.update
    }
    assert said["event/60"].startswith("switch: reason=")
    # Being watched changed nothing.
    plain = train(SHORT, tmp_path / "plain", show_progress=False)
    assert timeless(run_dir) == timeless(plain)


def crash():
    raise RuntimeError("crash")


def test_wandb_goes_on_after_a_crash_with_nothing_twice(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setattr(Trainer, "_learn", Trainer._learn)  # taken back at the end
    at_step(95, crash)  # some lines behind the last checkpoint, at 80
    with pytest.raises(RuntimeError, match="crash"):
        train(replace(SHORT, log_to=("wandb",)), tmp_path / "run", show_progress=False)
    resume(tmp_path / "run", show_progress=False)
    (told,) = events(tmp_path / "run", "resume")
    first, second = wandb_records(tmp_path / "run", 2)
    ids = [r.run.run_id for part in (first, second) for r in part if r.HasField("run")]
    known = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    assert set(ids) == {known["id"]}
    # Both files end up in one run: together they are the log, in order, each line once.
    rows = wandb_history(first) + wandb_history(second)
    assert steps_and_names(rows) == steps_and_names(numbers(tmp_path / "run"))
    assert wandb_history(first)[-1]["step"] > told["step"]  # there was something to leave out


def trackio_rows(folder: Path) -> list[tuple[str, int, dict[str, Any]]]:
    with sqlite3.connect(folder / "slipstream.db") as database:
        found = database.execute("select run_id, step, metrics from metrics order by id")
        return [(run, step, json.loads(metrics)) for run, step, metrics in found]


def test_trackio_gets_the_numbers_and_goes_on_with_the_run(tmp_path):
    pytest.importorskip("trackio")
    config = replace(SHORT, log_to=("trackio",))
    status, _, _ = in_child(tmp_path, train_until, config, tmp_path / "run", 75, signal.SIGINT)
    assert status == 130
    resume(tmp_path / "run", show_progress=False)
    rows = trackio_rows(tmp_path / "trackio")
    assert len({run for run, _, _ in rows}) == 1
    measured = [{"step": step, **row} for _, step, row in rows if "event" not in row]
    assert measured == numbers(tmp_path / "run")
    said = [row["event"] for _, step, row in rows if "event" in row and step == 60]
    assert said[0].startswith("switch: reason=")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_package_is_one_line_before_anything_is_written(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, name, None)
    run_dir = tmp_path / "run"
    arguments = ["train", "Pendulum-v1", "--log-to", name, "--run-dir", str(run_dir), "--quiet"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error == (
        f"slipstream: log_to names {name}, but the package {name} is not installed; install it "
        f"with: pip install 'slipstream-rl[{name}]'\n"
    )
    assert not run_dir.exists()


def test_neither_is_imported_unasked(tmp_path, monkeypatch):
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
    assert (train(SHORT, tmp_path / "run", show_progress=False) / "metrics.jsonl").exists()


def test_an_unknown_tracker_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["train", "Pendulum-v1", "--log-to", "mlflow"])
    assert "mlflow" in capsys.readouterr().err


def test_a_refusal_of_wandb_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    with pytest.raises(SlipstreamError, match="WANDB_MODE=offline") as error:
        open_trackers(["wandb"], tmp_path, CONFIG, resumed=False)
    assert "\n" not in str(error.value)


def test_the_identity_is_kept_and_a_broken_one_is_named(tmp_path):
    pytest.importorskip("wandb")
    for resumed in (False, True):
        (tracker,) = open_trackers(["wandb"], tmp_path, CONFIG, resumed)
        tracker.close()
        tracker.close()
    known = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    assert known["name"] == f"ALE_Pong-v5 p {tmp_path.name}"
    assert len(wandb_records(tmp_path, 2)) == 2
    (tmp_path / "trackers.json").write_text("{")
    with pytest.raises(SlipstreamError, match=r"trackers\.json.*remove it"):
        open_trackers(["wandb"], tmp_path, CONFIG, resumed=True)


class Failing:
    """A tracker whose server went away."""

    name = "wandb"

    def __init__(self):
        self.calls = 0

    def log(self, step, values):
        self.calls += 1
        raise ConnectionError("gone")

    def event(self, step, text):
        raise AssertionError("it was left out")

    def close(self):
        raise AssertionError("it was left out")


def test_a_tracker_that_fails_does_not_stop_the_run(tmp_path):
    failing = Failing()
    tracker: Any = failing
    with (
        pytest.warns(UserWarning, match=r"wandb gets no more.*gone.*metrics\.jsonl"),
        RunLogger(tmp_path, tensorboard=False, trackers=[tracker]) as logger,
    ):
        logger.log(1, "online", {"num_updates": 3})  # nothing to show
        assert failing.calls == 0
        logger.log(2, "online", {"train/q": 1.0})
        logger.log(3, "online", {"train/q": 2.0})
        logger.event(3, "online", "end")
    assert failing.calls == 1
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 3]


def test_installed_packages_are_found():
    for name in ("wandb", "trackio"):
        if importlib.util.find_spec(name) is not None:
            assert import_tracker(name).__name__ == name  # type: ignore[arg-type]


def test_one_line_loads_a_run_into_pandas(tmp_path):
    pytest.importorskip("pandas")
    with RunLogger(tmp_path, tensorboard=False) as logger:
        logger.log(5, "accelerate", {"train/q": float("nan"), "eval/transformer/return": 1.5})
        logger.event(5, "accelerate", "switch", reason="matched")
        logger.log(9, "online", {"eval/transformer/return": 2.5})
    page = (Path(__file__).parents[2] / "docs" / "logging-and-sharing.md").read_text()
    loading, choosing = re.findall(r"^```python\n(.*?)^```$", page, re.S | re.M)[:2]
    space: dict[str, Any] = {}
    exec(loading.replace("runs/pendulum/metrics.jsonl", str(tmp_path / "metrics.jsonl")), space)
    exec(choosing, space)
    curve, happened = space["curve"], space["events"]
    assert curve.to_numpy().tolist() == [[5, 1.5], [9, 2.5]]
    assert happened.to_numpy().tolist() == [[5, "switch", "matched"]]
