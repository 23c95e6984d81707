import io

import pytest
from rich.console import Console

from slipstream.logs.progress import Progress, format_seconds


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def make(terminal, **kwargs):
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100, color_system=None)
    clock = Clock()
    return Progress(1000, console=console, clock=clock, **kwargs), output, clock


def test_a_pipe_gets_a_plain_line_each_half_minute_and_at_each_stage():
    progress, output, clock = make(terminal=False)
    with progress:
        for step in range(0, 650, 10):  # 65 s in all, one call a second
            clock.now = step / 10
            progress.update(step, "accelerate", accelerator=12.34 if step == 200 else None)
        progress.message("switch at step 650: matched")
        progress.update(650, "online", transformer=11.0)
    lines = output.getvalue().splitlines()
    assert lines[0] == "accelerate · step 0 of 1,000"
    assert lines[1] == "accelerate · step 300 of 1,000 · 10 steps/s · 1:10 left · accelerator 12.3"
    assert lines[2].startswith("accelerate · step 600 of 1,000 · 10 steps/s · 0:40 left")
    assert lines[3] == "switch at step 650: matched"
    assert lines[4].startswith("online · step 650")
    assert lines[4].endswith("accelerator 12.3 · transformer 11.0")
    assert len(lines) == 6  # and the state at the end


def test_a_terminal_is_drawn_at_most_five_times_a_second(monkeypatch):
    progress, _, clock = make(terminal=True)
    draws = []
    with progress:
        monkeypatch.setattr(progress, "_draw", lambda: draws.append(clock.now))
        for call in range(10_000):  # ten seconds
            clock.now = call / 1000
            progress.update(call // 10, "accelerate")
        monkeypatch.undo()
    assert 45 <= len(draws) <= 51


def test_the_bar_shows_both_stages_and_the_switch():
    progress, output, clock = make(terminal=True)
    with progress:
        progress.update(100, "accelerate")
        progress.update(500, "online")
        clock.now = 5.0
        progress.update(750, "online", accelerator=5.0, transformer=6.0)
    lines = output.getvalue().splitlines()
    bar = next(line for line in reversed(lines) if "━" in line)
    facts = next(line for line in reversed(lines) if "steps/s" in line)
    assert bar.count("┃") == 1
    assert bar.index("┃") - bar.index("━") == 15  # half of 30 cells
    assert bar.count("━") == 22  # three quarters, less the stroke
    assert "750 / 1,000" in bar
    assert "50 steps/s · 0:05 left · accelerator 5.0 · transformer 6.0" in facts


def test_a_resumed_run_knows_its_switch():
    progress, output, _ = make(terminal=True, switch_step=100)
    with progress:
        progress.update(500, "online")
    assert "┃" in output.getvalue()


def test_disabled_shows_nothing():
    progress, output, _ = make(terminal=True, enabled=False)
    with progress:
        progress.update(10, "accelerate")
        progress.message("checkpoint")
    assert output.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")]
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text
