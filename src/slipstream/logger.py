"""What a run measured: `metrics.jsonl`, one JSON object a line, and TensorBoard beside it."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from slipstream.errors import SlipstreamError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard.writer import SummaryWriter


class RunLogger:
    """Writes the metrics of one run.

    Every line of `metrics.jsonl` reaches the operating system before `log` returns, so a killed
    process loses nothing. NaN and infinity become `null`: the file stays valid JSON.

    An exact resume needs an exact log: a run killed after its checkpoint has written lines that
    the resumed run will write again. A checkpoint therefore stores `position`, and the resumed
    logger cuts the file there (and tells TensorBoard to forget what came after).

    Args:
        run_dir: the run's folder; made if missing.
        tensorboard: also write `run_dir/tb`.
        resume_position: `position` as the checkpoint stored it; None for a new run.

    Raises:
        SlipstreamError: a new run in a folder that already has metrics, or a resume whose
            `metrics.jsonl` does not reach `resume_position`.
    """

    def __init__(
        self, run_dir: Path, tensorboard: bool = True, resume_position: int | None = None
    ) -> None:
        self.path = run_dir / "metrics.jsonl"
        run_dir.mkdir(parents=True, exist_ok=True)
        purge_step = None
        if resume_position is not None:
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
        metrics: "Mapping[str, float | int | list[float] | Tensor | None]",
    ) -> None:
        """Write one line of metrics.

        Args:
            step: counted environment transitions so far.
            stage: "accelerate" or "online".
            metrics: name -> number, list of numbers, or tensor (detached here; one of a single
                element becomes a number). Names with a slash (`eval/transformer/return`) also
                go to TensorBoard where they are single numbers.

        Raises:
            SlipstreamError: the line could not be written, for example to a full disk.
        """
        values = {name: _to_python(value) for name, value in metrics.items()}
        self._write({"step": step, "stage": stage, **values})
        if self._tensorboard is not None:
            for name, value in values.items():
                if "/" in name and isinstance(value, int | float):
                    self._tensorboard.add_scalar(name, value, step)

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
        if self._tensorboard is not None:
            detail = ", ".join(f"{name}={value}" for name, value in values.items())
            self._tensorboard.add_text("event", f"{event}: {detail}" if detail else event, step)

    def close(self) -> None:
        """Close both files; closing twice is allowed."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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


def _open_tensorboard(folder: Path, purge_step: int | None) -> "SummaryWriter":
    from torch.utils.tensorboard.writer import SummaryWriter  # slow to import: only when wanted

    return SummaryWriter(str(folder), purge_step=purge_step)
