"""How long a run takes, and with what."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Seconds of a run, on the wall and on the CPU, over all the processes that it went on in.

    Attributes:
        seconds: part of the work -> seconds on the wall that it took; `<part>_cpu` -> on the CPU.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.start()

    def start(self) -> None:
        """Let time count from here on; what was taken over counts too."""
        self._wall_start = time.perf_counter() - self.seconds["wall"]
        self._cpu_start = time.process_time() - self.seconds["cpu"]

    @property
    def wall(self) -> float:
        """Seconds on the wall."""
        return time.perf_counter() - self._wall_start

    @property
    def cpu(self) -> float:
        """Seconds on the CPU, of this process alone."""
        return time.process_time() - self._cpu_start

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add what happens meanwhile to a part of the work."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[part] += time.perf_counter() - wall
        self.seconds[f"{part}_cpu"] += time.process_time() - cpu

    def state_dict(self) -> dict[str, float]:
        """What to go on from."""
        return {**self.seconds, "wall": self.wall, "cpu": self.cpu}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take over what was counted before; `start` lets it go on."""
        self.seconds.update(state)
