import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slipstream.errors import SlipstreamError
from slipstream.logs.logger import RunLogger


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_line_holds_what_was_measured_and_nothing_else(tmp_path):
    with RunLogger(tmp_path, tensorboard=False) as logger:
        loss = torch.tensor(0.5, requires_grad=True) * 2
        logger.log(7, "accelerate", {"num_updates": 3, "train/critic_loss": loss})
        logger.log(8, "accelerate", {"train/alpha": torch.tensor([0.25])})
        numpy_metrics: Any = {"eval/transformer/returns": np.ones(2), "train/q": np.float32(4)}
        logger.log(9, "online", numpy_metrics)
        logger.event(9, "online", "switch", reason="matched")
    assert lines(tmp_path) == [
        {"step": 7, "stage": "accelerate", "num_updates": 3, "train/critic_loss": 1.0},
        {"step": 8, "stage": "accelerate", "train/alpha": 0.25},
        {"step": 9, "stage": "online", "eval/transformer/returns": [1.0, 1.0], "train/q": 4.0},
        {"step": 9, "stage": "online", "event": "switch", "reason": "matched"},
    ]


def test_nan_and_infinity_stay_valid_json(tmp_path):
    with RunLogger(tmp_path, tensorboard=False) as logger:
        logger.log(
            1,
            "online",
            {"train/q": math.nan, "train/alpha": torch.tensor(-math.inf), "x": [1.0, math.inf]},
        )
    assert lines(tmp_path) == [
        {"step": 1, "stage": "online", "train/q": None, "train/alpha": None, "x": [1.0, None]}
    ]


def test_every_line_can_be_read_before_the_logger_is_closed(tmp_path):
    logger = RunLogger(tmp_path, tensorboard=False)
    logger.log(1, "online", {"train/q": 1.0})
    assert len(lines(tmp_path)) == 1
    logger.close()


def test_resume_cuts_what_came_after_the_checkpoint_and_a_torn_line(tmp_path):
    first = RunLogger(tmp_path, tensorboard=False)
    first.log(10, "accelerate", {"train/q": 1.0})
    position = first.position
    # Same step, but after the checkpoint: a rule that compares steps would keep it twice.
    first.log(10, "accelerate", {"rollout/episode_return": 5.0})
    first.log(20, "accelerate", {"train/q": 2.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "sta')

    with RunLogger(tmp_path, tensorboard=False, resume_position=position) as resumed:
        assert resumed.position == position
        resumed.log(10, "accelerate", {"rollout/episode_return": 5.0})
    first.close()
    assert [line["step"] for line in lines(tmp_path)] == [10, 10]


def test_resumed_log_equals_the_uninterrupted_one(tmp_path):
    def write(logger, steps):
        for step in steps:
            logger.log(step, "online", {"train/q": step / 3, "x": [step / 7]})

    with RunLogger(tmp_path / "whole", tensorboard=False) as logger:
        write(logger, range(20))
    with RunLogger(tmp_path / "cut", tensorboard=False) as logger:
        write(logger, range(8))
        position = logger.position
        write(logger, range(8, 13))
    with RunLogger(tmp_path / "cut", tensorboard=False, resume_position=position) as logger:
        write(logger, range(8, 20))
    whole, cut = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_tensorboard_forgets_what_the_resumed_run_writes_again(tmp_path):
    with RunLogger(tmp_path) as logger:
        logger.log(1, "accelerate", {"eval/transformer/return": 1.0, "num_updates": 1})
        position = logger.position
        logger.log(2, "accelerate", {"eval/transformer/return": -99.0})
    with RunLogger(tmp_path, resume_position=position) as logger:
        logger.log(3, "online", {"eval/transformer/return": 3.0})
        logger.event(3, "online", "switch", reason="matched")
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert events.Tags()["scalars"] == ["eval/transformer/return"]
    scalars = events.Scalars("eval/transformer/return")
    assert [(scalar.step, scalar.value) for scalar in scalars] == [(1, 1.0), (3, 3.0)]


def test_a_new_run_does_not_append_to_an_old_one(tmp_path):
    with RunLogger(tmp_path, tensorboard=False) as logger:
        logger.log(1, "online", {"train/q": 1.0})
    with pytest.raises(SlipstreamError, match="already holds a run"):
        RunLogger(tmp_path, tensorboard=False)
    assert len(lines(tmp_path)) == 1


def test_resume_refuses_a_log_that_is_too_short_or_foreign(tmp_path):
    with pytest.raises(SlipstreamError, match="holds 0 bytes but the checkpoint was saved at 12"):
        RunLogger(tmp_path, tensorboard=False, resume_position=12)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "stage": "online"}\n')
    with pytest.raises(SlipstreamError, match="no line end at byte 12"):
        RunLogger(tmp_path, tensorboard=False, resume_position=12)


def test_a_full_disk_leaves_whole_lines_and_one_clear_error(tmp_path, monkeypatch):
    class FullDisk:
        """Takes a part of the line, then refuses, as a disk with a few free bytes does."""

        def __init__(self, file):
            self.file, self.calls = file, 0

        def write(self, data):
            self.calls += 1
            if self.calls > 1:
                raise OSError(28, "No space left on device")
            return self.file.write(data[:5])

        def fileno(self):
            return self.file.fileno()

        def close(self):
            self.file.close()

    logger = RunLogger(tmp_path, tensorboard=False)
    logger.log(1, "online", {"train/q": 1.0})
    monkeypatch.setattr(logger, "_file", FullDisk(logger._file))
    with pytest.raises(SlipstreamError, match="No space left on device"):
        logger.log(2, "online", {"train/q": 2.0})
    logger.close()
    assert [line["step"] for line in lines(tmp_path)] == [1]
