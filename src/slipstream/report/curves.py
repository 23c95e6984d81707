"""Parts that pictures share: a curve over seeds, the axis below it, the stages behind it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from slipstream.report.runs import Run, Series
from slipstream.report.statistics import bootstrap_interval, interquartile_mean, on_common_grid
from slipstream.report.theme import Theme


def draw_curve(
    axes: Axes,
    runs: Sequence[Run],
    key: str,
    label: str,
    colour: str,
    over: str,
    unit: float,
    style: str = "-",
) -> None:
    """Several seeds: interquartile mean, interval and thin single lines. One: line and band."""
    curves: list[tuple[np.ndarray, np.ndarray]] = []
    for run in runs:
        series = run.series(key)
        if len(series.value):
            curves.append(_last_of_each(_along(series, over, unit), series.value))
    if not curves:
        return
    if len(curves) == 1:
        x, y = curves[0]
        axes.plot(x, y, style, color=colour, label=label)
        if len(x) <= 40:
            axes.plot(x, y, "o", color=colour, ms=4)
        spread = runs[0].series(f"{key}_std") if len(runs) == 1 else None
        if spread is not None and len(spread.value):
            at, std = _last_of_each(_along(spread, over, unit), spread.value)
            std = np.interp(x, at, std)
            axes.fill_between(x, y - std, y + std, color=colour, alpha=0.15, lw=0)
        return
    for x, y in curves:
        axes.plot(x, y, color=colour, lw=0.9, alpha=0.4)
    grid, values = on_common_grid(curves)
    if len(grid):
        axes.plot(grid, interquartile_mean(values), style, color=colour, lw=2.6, label=label)
        low, high = bootstrap_interval(values)
        axes.fill_between(grid, low, high, color=colour, alpha=0.16, lw=0)


def _tick(value: float, position: int | None) -> str:
    return f"{value:,.6g}".replace("-", "\N{MINUS SIGN}")


def _along(series: Series, over: str, unit: float) -> np.ndarray:
    return series.step if over == "step" else series.wall_seconds / unit


def _last_of_each(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the last value of each x: a policy evaluated twice at a step counts once."""
    unique, first_from_end = np.unique(x[::-1], return_index=True)
    return unique, y[::-1][first_from_end]


def label_x_axis(axes: Axes, runs: Sequence[Run], over: str) -> float:
    """Labels the x-axis and returns the seconds of its unit (1 for steps)."""
    axes.margins(x=0.01)
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.set_ylabel("return")
    if over == "step":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("counted environment steps")
        axes.set_xlim(0, max(run.last_step for run in runs) * 1.01)
        return 1.0
    unit, name = time_unit([run.wall_seconds for run in runs])
    axes.set_xlabel(f"wall-clock ({name})")
    axes.set_xlim(0, max(run.wall_seconds for run in runs) * 1.01 / unit or 1)
    return unit


def time_unit(seconds: Sequence[float]) -> tuple[float, str]:
    """Seconds of the unit that suits the longest run, and its name."""
    longest = max(seconds)
    if longest < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if longest < 7200 else (3600.0, "hours")


def switches(runs: Sequence[Run], over: str, unit: float) -> list[float]:
    """Where on the x-axis each run switched; runs that did not are left out."""
    steps = [(run, int(run.switch["step"])) for run in runs if run.switch is not None]
    return [float(step) if over == "step" else run.wall_at(step) / unit for run, step in steps]


def mark_stages(axes: Axes, theme: Theme, runs: Sequence[Run], over: str, unit: float) -> None:
    """Shades the stages, names them at the top, and draws the switch of each seed."""
    at = switches(runs, over, unit)
    if not at:
        return
    left, right = axes.get_xlim()
    for start, stop, colour, name in (
        (left, min(at), theme.accelerator, "accelerate"),
        (max(at), right, theme.transformer, "online"),
    ):
        axes.axvspan(start, stop, color=colour, alpha=0.05, lw=0)
        if stop - start > 0.12 * (right - left):
            axes.text(
                (start + stop) / 2,
                1.01,
                name,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                color=colour,
                fontsize=10,
            )
    for switch in at:
        axes.axvline(switch, color=theme.ink, lw=1.2, alpha=0.75)
    axes.set_xlim(left, right)


def draw_legend(axes: Axes, handle_length: float = 1.5) -> None:
    """One row between title and axes, clear of the data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.05),
            ncols=len(labels),
            borderaxespad=0.0,
            columnspacing=1.2,
            handlelength=handle_length,
            fontsize=10,
        )
