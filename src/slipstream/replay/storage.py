"""Where rows lie: one tensor per column, written and gathered by flat row index."""

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slipstream.errors import SlipstreamError
from slipstream.replay.placement import Placement, Where
from slipstream.replay.sampling import Index
from slipstream.spec import ArraySpec, EnvSpec

Array = NDArray[Any] | Tensor


def columns(spec: EnvSpec) -> dict[str, ArraySpec]:
    """Everything that a row holds."""
    return {
        **{f"obs.{key}": value for key, value in spec.obs.items()},
        "action": ArraySpec((spec.action_dim,)),
        "reward": ArraySpec(()),
        "terminated": ArraySpec(()),
        "step": ArraySpec((), "int32"),
        # Flat row of an environment's k-th transition: lets a draw be uniform over transitions
        # without rejecting final rows, which are never acted upon.
        "table": ArraySpec((), "int32"),
    }


class RowStorage:
    """Rows of an environment's columns in one place.

    Attributes:
        where: "device", "host" or "disk".
        tensors: column -> (R, *).
        device: theirs, which is the CPU for a file too.
        step: (R,) the column "step" in the host's memory.
        table: (R,) the column "table" in the host's memory.
        on_host: whether indices are numpy arrays (rows are in the host's memory or in a file) or
            tensors.

    Raises:
        SlipstreamError: more bytes than are free (said before anything is allocated).
    """

    def __init__(
        self, spec: EnvSpec, num_rows: int, device: torch.device, placement: Placement
    ) -> None:
        self.where: Where = placement.choose(num_rows, row_bytes(spec), device)
        self.device = device if self.where == "device" else torch.device("cpu")
        self.on_host = self.device.type == "cpu"
        self.tensors = {
            name: self._zeros((num_rows, *column.shape), column.dtype, placement.folder)
            for name, column in columns(spec).items()
        }
        # Through numpy views of the CPU's memory an access costs a fraction of a torch one.
        self._views: dict[str, NDArray[Any]] = (
            {name: rows.numpy() for name, rows in self.tensors.items()} if self.on_host else {}
        )
        self.step = self._views["step"] if self.on_host else np.zeros(num_rows, np.int32)
        self.table = self._views["table"] if self.on_host else np.zeros(num_rows, np.int32)

    def _zeros(self, shape: tuple[int, ...], dtype: str, folder: Path | None) -> Tensor:
        if self.where == "disk" and folder is not None:
            return _file(shape, dtype, folder)
        return torch.zeros(shape, dtype=getattr(torch, dtype), device=self.device)

    def write(self, name: str, rows: NDArray[np.int64], value: Array, envs: Any) -> None:
        """Write the chosen environments' part of a value (E, *) into their rows."""
        if self.on_host:
            self._views[name][rows] = to_host(value)[envs]
        else:
            target = self.tensors[name]
            part = torch.as_tensor(value, device=self.device)[envs]
            target[self.to_device(rows)] = part.to(target.dtype)

    def write_step(self, rows: NDArray[np.int64], step: NDArray[np.int32]) -> None:
        """Write the rows' steps in their episode."""
        self.step[rows] = step
        if not self.on_host:
            self.tensors["step"][self.to_device(rows)] = self.to_device(step)

    def write_table(self, entries: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Note which rows are transitions."""
        self.table[entries] = rows
        if not self.on_host:
            self.tensors["table"][self.to_device(entries)] = self.to_device(rows).int()

    def read_step(self) -> None:
        """Bring the host's steps up to date after the device's rows were replaced."""
        if not self.on_host:
            self.step[:] = self.tensors["step"].cpu().numpy()

    def take(self, name: str, index: Index) -> Index:
        """Entries of a column of indices: (B,) -> (B,)."""
        return self._views[name].take(index) if self.on_host else self.tensors[name][index]

    def gather(self, name: str, index: Index, device: torch.device) -> Tensor:
        """Rows of a column on a device: index (B, T) -> (B, T, *)."""
        rows = self.tensors[name]
        if not self.on_host:
            return rows.index_select(0, index.reshape(-1)).view(*index.shape, *rows.shape[1:])
        if device.type == "cpu":
            return to_tensor(self._views[name].take(index, axis=0))
        # Through pinned memory, from which the device copies while the host goes on; torch hands it
        # out again only when the copy is done. Pinning all rows would take it from everybody else.
        shape = (*index.shape, *rows.shape[1:])
        pinned = torch.empty(shape, dtype=rows.dtype, pin_memory=True)
        self._views[name].take(index, axis=0, out=pinned.numpy())
        return pinned.to(device, non_blocking=True)

    def index(self, array: NDArray[Any]) -> Index:
        """An array of indices, where this storage's index arithmetic is done."""
        return array if self.on_host else self.to_device(array)

    def to_device(self, array: NDArray[Any]) -> Tensor:
        """An array as a tensor on the storage's device."""
        return to_tensor(array).to(self.device)


def row_bytes(spec: EnvSpec) -> int:
    """Bytes of one row."""
    return sum(column.num_bytes for column in columns(spec).values())


def _file(shape: tuple[int, ...], dtype: str, folder: Path) -> Tensor:
    """Zeros in a file without a name: however the process ends, nothing is left behind."""
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Taken from the disk now: a page for which there is no room later kills the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            return to_tensor(np.memmap(file, dtype, mode="w+", shape=shape))
    except OSError as error:
        raise SlipstreamError(
            f"a replay cannot have {num_bytes / 2**30:.2f} GiB in {folder} ({error}); use another "
            "run folder, or a smaller replay_capacity"
        ) from error


def check_column(name: str, found: Mapping[str, Tensor], rows: Tensor) -> None:
    """Check that a stored column (E, L, *) fits this one (R, *).

    Raises:
        SlipstreamError: it is missing, or of another shape or dtype.
    """
    stored = found.get(name)
    have = "nothing" if stored is None else f"{list(stored.shape[2:])} {stored.dtype}"
    need = f"{list(rows.shape[1:])} {rows.dtype}"
    if have != need:
        raise SlipstreamError(
            f"the stored replay has {have} for {name}, this one {need}: "
            "use the environment that it was recorded in"
        )


def to_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor on the array's own memory."""
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]


def to_host(value: Array) -> NDArray[Any]:
    """A numpy array of a value that may be a tensor."""
    return value.numpy(force=True) if isinstance(value, Tensor) else np.asarray(value)
