"""Where a replay's rows lie: on the learner's device, in the host's memory, or in a file."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from slipstream.errors import SlipstreamError

Where = Literal["device", "host", "disk"]
ReplayDevice = Literal["auto", "device", "host", "disk"]

DEVICE_SHARE = 0.8
"""Of a CUDA device's free memory: the rest is for networks, their gradients and activations."""
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Placement:
    """Where rows may lie.

    Attributes:
        wanted: a place, or "auto" for the fastest that has room: the learner's device, then the
            host's memory, then the disk.
        folder: where a file may be; None for no file.
    """

    wanted: ReplayDevice = "auto"
    folder: Path | None = None

    def choose(self, num_rows: int, row_bytes: int, device: torch.device) -> Where:
        """The place for so many rows; nothing is allocated.

        Raises:
            SlipstreamError: they do not fit there, or nowhere.
        """
        free = self.room(device)
        for where in free:
            if num_rows * row_bytes <= free[where]:
                return where
        said = ", ".join(
            f"{value / 2**30:.2f} GiB are free {describe(where, device)}"
            for where, value in free.items()
        )
        other = "" if self.wanted == "auto" else ", or another --replay-device"
        raise SlipstreamError(
            f"a replay of {num_rows} rows needs {num_rows * row_bytes / 2**30:.2f} GiB but {said}: "
            f"use a replay_capacity of at most {int(0.9 * max(free.values()) / row_bytes)}{other}"
        )

    def room(self, device: torch.device) -> dict[Where, int]:
        """Bytes that are free in each place that may be taken, the fastest first."""
        places: tuple[Where, ...] = ("device", "host", "disk")
        if self.wanted != "auto":
            places = (self.wanted,)
        elif device.type == "cpu":
            places = ("device", "disk")
        if self.wanted == "auto" and self.folder is None:
            places = tuple(where for where in places if where != "disk")
        return {where: free_bytes(where, device, self.folder) for where in places}


def describe(where: Where, device: torch.device) -> str:
    """A place in words."""
    if where == "disk":
        return "on the disk"
    return "in memory" if where == "host" or device.type == "cpu" else f"on {device}"


def free_bytes(where: Where, device: torch.device, folder: Path | None = None) -> int:
    """Bytes that can still be allocated in a place."""
    if where == "disk":
        if folder is None:
            return 0
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        return shutil.disk_usage(existing).free
    if where == "device" and device.type == "cuda":
        return int(DEVICE_SHARE * torch.cuda.mem_get_info(device)[0])
    return min(psutil.virtual_memory().available, _left_by_cgroup())


def _left_by_cgroup() -> int:
    """What a container's own limit leaves; without one, more than any machine has."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        return max(limit - int((CGROUP / "memory.current").read_text()), 0)
    except (OSError, ValueError):  # no such file, or "max"
        return 2**62
