"""What a run measured: `metrics.jsonl`, one JSON object a line, and whoever else is told."""

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from slipstream.errors import SlipstreamError
from slipstream.logs.trackers import Tracker

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard.writer import SummaryWriter


class RunLogger:
    """Writes the metrics of one run.

    Every line of `metrics.jsonl` reaches the operating system before `log` returns, so a killed
    process loses nothing. NaN and infinity become `null`: the file stays valid JSON.

    An exact resume needs an exact log: a run killed after its checkpoint has written lines that
    the resumed run will write again. A checkpoint therefore stores `position`, and the resumed
    logger cuts the file there (and tells TensorBoard to forget what came after). Trackers cannot
    forget, so what they were given already is not given to them again.

    Args:
        run_dir: the run's folder; made if missing.
        tensorboard: also write `run_dir/tb`.
        resume_position: `position` as the checkpoint stored it; None for a new run.
        trackers: they get the same numbers; `close` closes them. One that fails is left out from
            then on, with a warning: the run goes on, and the file has everything.

    Raises:
        SlipstreamError: a new run in a folder that already has metrics, or a resume whose
            `metrics.jsonl` does not reach `resume_position`.
    """

    def __init__(
        self,
        run_dir: Path,
        tensorboard: bool = True,
        resume_position: int | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.path = run_dir / "metrics.jsonl"
        self._trackers = list(trackers)
        self._tracked_until = -1
        run_dir.mkdir(parents=True, exist_ok=True)
        purge_step = None
        if resume_position is not None:
            self._tracked_until = last_step(self.path)
            purge_step = _cut(self.path, resume_position)
        elif self.path.exists() and self.path.stat().st_size > 0:
            raise SlipstreamError(
                f"{self.path} already holds a run; resume it (`slipstream resume {run_dir}`) "
                "or choose another folder"
            )
        # Unbuffered: one system call a line, and nothing is left behind in a buffer when it fails.
        self._file = self.path.open("ab", buffering=0)
        self._position = self.path.stat().st_size
        self._tensorboard = _open_tensorboard(run_dir / "tb", purge_step) if tensorboard else None

    @property
    def position(self) -> int:
        """Bytes of `metrics.jsonl` written so far; all of them are on the disk when this returns.

        Store it in a checkpoint and hand it back as `resume_position`.
        """
        os.fsync(self._file.fileno())
        if self._tensorboard is not None:
            self._tensorboard.flush()
        return self._position

    def log(
        self,
        step: int,
        stage: str,
        metrics: "Mapping[str, float | int | str | list[float] | Tensor | None]",
    ) -> None:
        """Write one line of metrics.

        Args:
            step: counted environment transitions so far.
            stage: "accelerate" or "online".
            metrics: name -> number, text, list of numbers, or tensor (detached here; one of a
                single element becomes a number). Names with a slash
                (`eval/transformer/return`) also go to TensorBoard and the trackers where they
                are single numbers.

        Raises:
            SlipstreamError: the line could not be written, for example to a full disk.
        """
        values = {name: _to_python(value) for name, value in metrics.items()}
        self._write({"step": step, "stage": stage, **values})
        numbers = {
            name: value
            for name, value in values.items()
            if "/" in name and isinstance(value, int | float)
        }
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(name, value, step)
        if numbers:
            self._track(step, lambda tracker: tracker.log(step, numbers))

    def event(self, step: int, stage: str, event: str, **fields: Any) -> None:
        """Write one line that says what happened: "switch", "rollback", "resume", "end".

        Args:
            step: counted environment transitions so far.
            stage: the stage in which it happened.
            event: what happened.
            **fields: more about it, such as `reason="matched"`.

        Raises:
            SlipstreamError: the line could not be written, for example to a full disk.
        """
        values = {name: _to_python(value) for name, value in fields.items()}
        self._write({"step": step, "stage": stage, "event": event, **values})
        detail = ", ".join(f"{name}={value}" for name, value in values.items())
        text = f"{event}: {detail}" if detail else event
        if self._tensorboard is not None:
            self._tensorboard.add_text("event", text, step)
        self._track(step, lambda tracker: tracker.event(step, text))

    def close(self) -> None:
        """Close the files and the trackers; closing twice is allowed."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
        self._each_tracker(lambda tracker: tracker.close())
        self._trackers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _track(self, step: int, give: Callable[[Tracker], None]) -> None:
        if step > self._tracked_until:
            self._each_tracker(give)

    def _each_tracker(self, give: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self._trackers):
            try:
                give(tracker)
            except Exception as error:
                self._trackers.remove(tracker)
                warnings.warn(
                    f"{tracker.name} gets no more of this run ({type(error).__name__}: {error}); "
                    f"{self.path} has all of it",
                    stacklevel=2,
                )

    def _write(self, line: dict[str, Any]) -> None:
        data = (json.dumps(_finite(line), allow_nan=False) + "\n").encode()
        rest = memoryview(data)
        try:
            while rest:  # a nearly full disk takes a part of the line before it refuses
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), self._position)
            raise SlipstreamError(
                f"could not write {self.path}: {error.strerror}; mend that, then resume the run"
            ) from error
        self._position += len(data)


def _to_python(value: Any) -> Any:
    """Tensors, arrays and NumPy numbers become Python numbers and lists, all else stays."""
    if not hasattr(value, "tolist"):
        return value
    # A parameter such as log_alpha has shape (1,), but is one number to whoever reads the log.
    return value.item() if math.prod(value.shape) == 1 else value.tolist()


def _finite(value: Any) -> Any:
    """Replaces NaN and infinity, which JSON lacks, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(_to_python(item)) for item in value]
    return value


def _cut(path: Path, position: int) -> int:
    """Truncates the log to `position` bytes and returns the first step TensorBoard must forget."""
    size = path.stat().st_size if path.exists() else 0
    if size < position:
        raise SlipstreamError(
            f"{path} holds {size} bytes but the checkpoint was saved at {position}; restore the "
            "file or resume from an older checkpoint"
        )
    with path.open("r+b") as file:
        kept = file.read(position)
        if kept and not kept.endswith(b"\n"):
            raise SlipstreamError(
                f"{path} has no line end at byte {position}, where the checkpoint was saved: it "
                "is not the log of this run; restore the file or resume from an older checkpoint"
            )
        file.truncate(position)
    steps = [json.loads(line)["step"] for line in kept.splitlines()[-1:]]
    return steps[0] + 1 if steps else 0


def last_step(path: Path) -> int:
    """The step of the last whole line; -1 where there is none."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    for line in reversed(lines[-2:]):  # the last one may be torn
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return -1


def _open_tensorboard(folder: Path, purge_step: int | None) -> "SummaryWriter":
    from torch.utils.tensorboard.writer import SummaryWriter  # slow to import: only when wanted

    return SummaryWriter(str(folder), purge_step=purge_step)
