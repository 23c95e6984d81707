"""What a person sees while a run trains: one live line in a terminal, plain lines elsewhere."""

import math
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

STAGE_STYLES = {"accelerate": "dark_orange", "online": "dodger_blue1"}
BAR_WIDTH = 30
REFRESH_SECONDS = 0.2
PLAIN_SECONDS = 30.0
RATE_SAMPLES = 60


class Progress:
    """Shows stage, steps, speed, time left and the last returns of both actors.

    May be called at every step: it draws at most five times a second in a terminal and writes a
    plain line every half minute (and at each new stage) where the output is a file or a pipe.

    Args:
        total_steps: counted steps of the whole run, both stages.
        enabled: False shows nothing at all.
        switch_step: where the run switched, if it did before this start (a resumed run).
        console: where to draw; standard output by default.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        total_steps: int,
        enabled: bool = True,
        switch_step: int | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_steps = total_steps
        self.enabled = enabled
        self.switch_step = switch_step
        self._console = console if console is not None else Console()
        self._clock = clock
        self._live: Live | None = None
        self._step = 0
        self._stage = ""
        self._returns: dict[str, float] = {}
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES)
        self._drawn_at = -math.inf

    def __enter__(self) -> Self:
        if self.enabled and self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.enabled and self._stage:
            self._draw()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(
        self,
        step: int,
        stage: str,
        accelerator: float | None = None,
        transformer: float | None = None,
    ) -> None:
        """Tell where the run is.

        Args:
            step: counted steps so far.
            stage: "accelerate" or "online".
            accelerator: its latest evaluation return, when there is a new one.
            transformer: its latest evaluation return, when there is a new one.
        """
        if not self.enabled:
            return
        new_stage = stage != self._stage
        if new_stage:
            self._samples.clear()  # the stages differ in speed: the old one says nothing of the new
            if self._stage and self.switch_step is None:
                self.switch_step = step
        self._step, self._stage = step, stage
        for name, value in (("accelerator", accelerator), ("transformer", transformer)):
            if value is not None:
                self._returns[name] = value
        now = self._clock()
        period = REFRESH_SECONDS if self._live is not None else PLAIN_SECONDS
        if now - self._drawn_at >= period or new_stage:
            self._samples.append((now, step))
            self._drawn_at = now
            self._draw()

    def message(self, text: str) -> None:
        """Say what happened (switch, rollback, checkpoint); it stays above the live line."""
        if self.enabled:
            self._console.print(Text(text), soft_wrap=True)

    @property
    def steps_per_second(self) -> float | None:
        """Counted steps a second of late (12 s of a live display); None at a stage's start."""
        if not self._samples:
            return None
        (first_time, first_step), (last_time, last_step) = self._samples[0], self._samples[-1]
        elapsed = last_time - first_time
        return (last_step - first_step) / elapsed if elapsed > 0 else None

    def _draw(self) -> None:
        if self._live is None:
            self._console.print(self._facts(), soft_wrap=True)
        else:
            self._live.update(Group(self._bar(), self._facts()), refresh=True)

    def _bar(self) -> Text:
        """A bar over both stages, each in its colour, the switch a vertical stroke."""
        cells = BAR_WIDTH * min(1.0, self._step / max(self.total_steps, 1))
        switch_cell = None
        if self.switch_step is not None and self.total_steps > 0:
            switch_cell = min(BAR_WIDTH - 1, BAR_WIDTH * self.switch_step // self.total_steps)
        bar = Text(f"{self._stage:<10} ", style=f"bold {self._style(self._stage)}")
        for cell in range(BAR_WIDTH):
            if cell == switch_cell:
                bar.append("┃", style="bold")
            elif cell < cells:
                past = switch_cell is not None and cell < switch_cell
                bar.append("━", style=self._style("accelerate" if past else self._stage))
            else:
                bar.append("─", style="dim")
        bar.append(f" {self._step:,} / {self.total_steps:,}", style="default")
        return bar

    def _facts(self) -> Text:
        facts = [] if self._live else [self._stage, f"step {self._step:,} of {self.total_steps:,}"]
        rate = self.steps_per_second
        if rate:
            remaining = max(0, self.total_steps - self._step) / rate
            facts += [f"{rate:,.0f} steps/s", f"{format_seconds(remaining)} left"]
        facts += [f"{name} {value:,.1f}" for name, value in self._returns.items()]
        return Text(" · ".join(facts))

    @staticmethod
    def _style(stage: str) -> str:
        return STAGE_STYLES.get(stage, "default")


def format_seconds(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
