"""The pictures of a report: learning curves, clone error, Q values, returns, times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.ndimage import median_filter

from slipstream.report.curves import (
    draw_curve,
    draw_legend,
    label_x_axis,
    mark_stages,
    switches,
    time_unit,
)
from slipstream.report.runs import Group
from slipstream.report.summary import GroupSummary, duration
from slipstream.report.theme import LIGHT, Theme, matplotlib_style

DPI = 160
WIDE, HALF = (10.0, 4.4), (6.4, 4.0)


LINE_STYLES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Picture:
    """One figure: its file name, the sentence that says how to read it, and how to draw it."""

    name: str
    caption: str
    size: tuple[float, float]
    draw: Callable[[Figure, Theme], None]


def save(picture: Picture, theme: Theme, folder: Path) -> Path:
    """Draws one picture into `folder` and returns the PNG's path."""
    suffix = "" if theme is LIGHT else f"-{theme.name}"
    path = folder / f"{picture.name}{suffix}.png"
    with matplotlib_style(theme):
        figure = Figure(figsize=picture.size, layout="constrained")
        FigureCanvasAgg(figure)
        picture.draw(figure, theme)
        figure.savefig(path, dpi=DPI, facecolor=theme.paper)
    return path


def group_pictures(summary: GroupSummary, prefix: str) -> list[Picture]:
    """The pictures of one group of seeds; those without data are left out."""
    group = summary.group
    pictures = [
        Picture(
            f"{prefix}learning-steps",
            "Return of the noise-free policies over counted environment steps, both stages "
            f"included. {_reading(group)}",
            WIDE,
            lambda figure, theme: _draw_learning(figure, theme, summary, "step"),
        ),
        Picture(
            f"{prefix}learning-time",
            "The same returns over wall-clock time: what you wait for, evaluation included.",
            HALF,
            lambda figure, theme: _draw_learning(figure, theme, summary, "wall"),
        ),
        Picture(
            f"{prefix}training-returns",
            "Return of each training episode as it was collected, exploration included; the line "
            "is a running median. The colour tells who acted.",
            HALF,
            lambda figure, theme: _draw_rollouts(figure, theme, group),
        ),
        Picture(
            f"{prefix}clone-error",
            "How far the transformer's actions are from the accelerator's: in the windows it is "
            "cloned on (loss), and in states it reaches itself (own states). Lower is closer.",
            HALF,
            lambda figure, theme: _draw_clone(figure, theme, group),
        ),
        Picture(
            f"{prefix}q-values",
            "The critic's values against the targets it learns from. They should rise together "
            "with the return; values that run away while returns fall are overestimation.",
            HALF,
            lambda figure, theme: _draw_q(figure, theme, group),
        ),
        Picture(
            f"{prefix}times",
            "Where the wall-clock went: acting in the environment, gradient updates, cloning, "
            "evaluation, and all the rest.",
            (6.4, 1.7 + 0.55 * len(group.runs)),
            lambda figure, theme: _draw_times(figure, theme, group),
        ),
    ]
    needs = {
        "learning-steps": ("eval/transformer/return", "eval/accelerator/return"),
        "learning-time": ("eval/transformer/return", "eval/accelerator/return"),
        "training-returns": ("rollout/episode_return",),
        "clone-error": ("clone/loss", "clone/own_state_error"),
        "q-values": ("train/q", "train/target_q"),
        "times": tuple(TIME_PARTS),
    }
    measured = [
        picture
        for picture in pictures
        if any(
            len(run.series(key).value)
            for key in needs[picture.name.removeprefix(prefix)]
            for run in group.runs
        )
    ]
    # Half-width pictures stand in pairs; the last one takes the whole width where it has no mate.
    if sum(picture.size != WIDE for picture in measured) % 2:
        measured[-1] = replace(measured[-1], size=(WIDE[0], measured[-1].size[1]))
    return measured


def comparison_pictures(env_id: str, groups: Sequence[Group], prefix: str) -> list[Picture]:
    """All groups of one environment in one picture, over steps and over wall-clock."""
    return [
        Picture(
            f"{prefix}comparison-steps",
            "Each method by the policy it ends with (the transformer, or the accelerator where "
            f"it trained alone), over counted steps of both stages. {BAND} Dotted uprights: where "
            "each seed switched.",
            WIDE,
            lambda figure, theme: _draw_comparison(figure, theme, env_id, groups, "step"),
        ),
        Picture(
            f"{prefix}comparison-time",
            "The same over wall-clock time. Compare times only of runs on the same machine.",
            WIDE,
            lambda figure, theme: _draw_comparison(figure, theme, env_id, groups, "wall"),
        ),
    ]


BAND = (
    "Bold: interquartile mean over seeds (the plain mean below four seeds) with its bootstrap "
    "95 % interval; thin: single seeds."
)
TIME_PARTS = {
    "time/act_seconds": "acting",
    "time/learn_seconds": "learning",
    "time/clone_seconds": "cloning",
    "time/eval_seconds": "evaluation",
}


def _reading(group: Group) -> str:
    band = BAND
    if len(group.runs) == 1:
        band = "The band is one standard deviation over evaluation episodes."
    if any(run.switch for run in group.runs):
        band += (
            " The vertical line marks the switch to the transformer; the dashed level is what the "
            "accelerator had reached there."
        )
    return band


def _draw_learning(figure: Figure, theme: Theme, summary: GroupSummary, over: str) -> None:
    group = summary.group
    axes = figure.subplots()
    unit = label_x_axis(axes, group.runs, over)
    for actor, colour in (
        ("accelerator", theme.accelerator),
        ("transformer", theme.transformer),
    ):
        draw_curve(axes, group.runs, f"eval/{actor}/return", actor, colour, over, unit)
    if summary.random is not None:
        axes.axhline(summary.random.value, color=theme.faint, lw=1.4, ls=":", label="random")
    at = switches(group.runs, over, unit)
    if summary.accelerator is not None and at:
        axes.hlines(
            summary.accelerator.value,
            min(at),
            axes.get_xlim()[1],
            color=theme.accelerator,
            lw=1.2,
            ls=(0, (5, 4)),
            label="accelerator at switch",
        )
    mark_stages(axes, theme, group.runs, over, unit)
    axes.set_title(f"{group.env_id}: evaluation return", pad=34)
    draw_legend(axes)


def _draw_comparison(
    figure: Figure, theme: Theme, env_id: str, groups: Sequence[Group], over: str
) -> None:
    axes = figure.subplots()
    unit = label_x_axis(axes, [run for group in groups for run in group.runs], over)
    # An accelerator keeps its own colour among the methods too, as long as it is the only one.
    others = [colour for colour in theme.groups if colour != theme.accelerator]
    if sum(group.actor == "accelerator" for group in groups) != 1:
        others = list(theme.groups)
    free = cycle(others)
    for index, group in enumerate(groups):
        own = len(others) < len(theme.groups) and group.actor == "accelerator"
        colour = theme.accelerator if own else next(free)
        style = LINE_STYLES[index % len(LINE_STYLES)]
        key = f"eval/{group.actor}/return"
        draw_curve(axes, group.runs, key, group.name, colour, over, unit, style)
        for at in switches(group.runs, over, unit):
            axes.axvline(at, color=colour, lw=1.2, ls=(0, (1, 2)))
    axes.set_title(f"{env_id}: evaluation return", pad=34)
    draw_legend(axes, handle_length=2.8)


def _draw_rollouts(figure: Figure, theme: Theme, group: Group) -> None:
    axes = figure.subplots()
    unit = label_x_axis(axes, group.runs, "step")
    for run in group.runs:
        series = run.series("rollout/episode_return")
        if not len(series.value):
            continue
        online_from = run.switch["step"] if run.switch else np.inf
        online = series.step > online_from
        if group.stages == ("online",):
            online = np.ones_like(online)
        colours = np.where(online, theme.transformer, theme.accelerator)
        axes.scatter(series.step, series.value, s=7, c=colours, alpha=0.4, linewidths=0)
        width = max(3, len(series.value) // 25)
        smooth = median_filter(series.value, size=width, mode="nearest")
        for part, colour in ((~online, theme.accelerator), (online, theme.transformer)):
            axes.plot(series.step[part], smooth[part], color=colour, lw=1.8)
    mark_stages(axes, theme, group.runs, "step", unit)
    axes.set_title(f"{group.env_id}: training episodes", pad=22)
    axes.set_ylabel("episode return")


def _draw_clone(figure: Figure, theme: Theme, group: Group) -> None:
    axes = figure.subplots()
    unit = label_x_axis(axes, group.runs, "step")
    draw_curve(axes, group.runs, "clone/loss", "loss", theme.faint, "step", unit)
    draw_curve(
        axes, group.runs, "clone/own_state_error", "own states", theme.transformer, "step", unit
    )
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 50 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    mark_stages(axes, theme, group.runs, "step", unit)
    axes.set_title(f"{group.env_id}: clone error", pad=34)
    axes.set_ylabel("error (log scale)")
    draw_legend(axes)


def _draw_q(figure: Figure, theme: Theme, group: Group) -> None:
    axes = figure.subplots()
    unit = label_x_axis(axes, group.runs, "step")
    draw_curve(axes, group.runs, "train/target_q", "target", theme.faint, "step", unit)
    draw_curve(axes, group.runs, "train/q", "Q", theme.groups[2], "step", unit)
    mark_stages(axes, theme, group.runs, "step", unit)
    axes.set_title(f"{group.env_id}: critic values", pad=34)
    axes.set_ylabel("mean over the batch")
    draw_legend(axes)


def _draw_times(figure: Figure, theme: Theme, group: Group) -> None:
    axes = figure.subplots()
    unit, unit_name = time_unit([run.wall_seconds for run in group.runs])
    names = [f"seed {run.seed}" for run in group.runs]
    seconds = {
        label: np.array([max(run.series(key).value, default=0.0) for run in group.runs])
        for key, label in TIME_PARTS.items()
    }
    wall = np.array([run.wall_seconds for run in group.runs])
    seconds["other"] = np.clip(wall - sum(seconds.values()), 0.0, None)
    left = np.zeros(len(names))
    for (label, part), colour in zip(seconds.items(), theme.parts, strict=True):
        if part.any():
            axes.barh(
                names,
                part / unit,
                left=left / unit,
                height=0.58,
                label=label,
                color=colour,
                edgecolor=theme.paper,
            )
            left += part
    for index, total in enumerate(left):
        axes.annotate(
            duration(total),
            (total / unit, index),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
        )
    axes.set_xlim(0, 1.2 * (left.max() / unit or 1.0))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"wall-clock ({unit_name})")
    axes.set_title(f"{group.env_id}: where the time went", pad=34)
    draw_legend(axes)
