"""Draw the switch study: what the last return owes to the moment of the switch, and a table.

    python -m benchmarks.switch_figure

Reads `benchmarks/results/switch/`, writes `table.md` there and `docs/figures/switch_study.png`.
Tasks stand below each other, one row each.
"""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from benchmarks.study_figure import FIGURES, RESULTS, Curve, interval, read
from benchmarks.switch_study import LATEST, TASKS
from slipstream.report.statistics import interquartile_mean

FIXED_COLOUR, RULE_COLOUR, ALONE_COLOUR = "#0072B2", "#E69F00", "#009E73"
ALONE = "accelerator"


def label(name: str) -> str:
    """A variant in words."""
    if name == ALONE:
        return "accelerator alone"
    rule, share = name.rsplit("-", 1)
    return f"at {share} %" if rule == "at" else f"rule `matched`, from {share} % on"


def last(runs: list[Curve]) -> np.ndarray:
    """The last return of each run."""
    return np.array([run.values[-1] for run in runs])


def draw_moments(axis: Axes, task: str, found: dict[str, list[Curve]]) -> None:
    """Last return over the step of the switch."""
    for name, colour in (("at-", FIXED_COLOUR), ("matched-", RULE_COLOUR)):
        for variant, runs in found.items():
            if variant.startswith(name):
                steps = [run.switch or 0 for run in runs]
                axis.scatter(steps, last(runs), color=colour, s=14, alpha=0.6, lw=0)
    fixed = sorted(
        (runs[0].switch or 0, interquartile_mean(last(runs)))
        for variant, runs in found.items()
        if variant.startswith("at-")
    )
    axis.plot(*zip(*fixed, strict=True), color=FIXED_COLOUR, lw=2, label="fixed moment")
    for variant, runs in found.items():
        if variant.startswith("matched-"):
            where = np.mean([run.switch or 0 for run in runs])
            value = float(interquartile_mean(last(runs)))
            axis.scatter(
                float(where), value, marker="D", s=60, color=RULE_COLOUR, label=label(variant)
            )
    if ALONE in found:
        value = float(interquartile_mean(last(found[ALONE])))
        axis.axhline(value, color=ALONE_COLOUR, ls="--", lw=1.5, label="accelerator alone")
    axis.set(
        title=f"{task}, {TASKS[task].steps:,} counted steps",
        xlabel="step of the switch",
        ylabel="return at the end, 10 episodes",
    )


def draw_curves(axis: Axes, found: dict[str, list[Curve]]) -> None:
    """Mean return over steps, one line a fixed moment."""
    fixed = sorted(name for name in found if name.startswith("at-"))
    colours = mpl.colormaps["viridis"](np.linspace(0.05, 0.9, len(fixed)))
    for name, colour in zip(fixed, colours, strict=True):
        runs = found[name]
        grid = runs[0].steps
        values = np.mean([np.interp(grid, run.steps, run.values) for run in runs], 0)
        axis.plot(grid, values, color=colour, lw=1.8, label=label(name))
    axis.set(title="the actor that collects, mean of seeds", xlabel="env steps, all counted")


def find(task: str) -> dict[str, list[Curve]]:
    """The kept runs of a task, by variant."""
    found = {
        name: [
            read(done.parent, "return")
            for done in sorted((RESULTS / "switch" / task).glob(f"{name}/*/done.json"))
        ]
        for name in sorted(("at-80", *TASKS[task].variants))
    }
    return {name: runs for name, runs in found.items() if runs}


def main() -> None:
    """Draw what is there."""
    mpl.use("Agg")
    plt.rcParams.update({"font.size": 9, "axes.titleweight": "bold", "axes.titlesize": 10})
    tasks = {task: found for task in TASKS if (found := find(task))}
    figure, axes = plt.subplots(
        len(tasks), 2, figsize=(10, 3.6 * len(tasks)), squeeze=False, layout="constrained"
    )
    rows = [
        "| task | switch | at step (accelerator's return there) | last return, each seed | "
        "IQM (95 % interval) | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for (moments, curves), (task, found) in zip(axes, tasks.items(), strict=True):
        draw_moments(moments, task, found)
        draw_curves(curves, found)
        for axis in (moments, curves):
            axis.legend(frameon=False, fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.2)
        for name, runs in found.items():
            ends = last(runs)
            low, high = interval(ends)
            steps = ", ".join(f"{r.switch} ({r.handed_over:.0f})" for r in runs if r.switch)
            rows.append(
                f"| {task} | {label(name)} | {'' if name == ALONE else steps} | "
                f"{' / '.join(f'{x:.0f}' for x in ends)} | "
                f"{interquartile_mean(ends):.0f} ({low:.0f} to {high:.0f}) | "
                f"{np.mean([run.cpu_seconds[-1] for run in runs]):.0f} |"
            )
    figure.savefig(FIGURES / "switch_study.png", dpi=130)
    note = (
        "SAC, default networks; all variants of a seed share their stage 1 to the bit and none "
        f"switches later than {LATEST:.0%} of all steps. Every env step of both stages is counted, "
        "evaluation (10 episodes on fixed seeds) not.\n"
    )
    (RESULTS / "switch" / "table.md").write_text("\n".join(rows) + "\n\n" + note)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
