"""Draw a study: returns (or successes) over counted steps and over CPU time, and a table.

    python -m benchmarks.study_figure learning
    python -m benchmarks.study_figure learning --task HalfCheetah-v5-sac

Reads `benchmarks/results/<study>/`, writes `table.md` there and `docs/figures/<study>_study.png`;
of one task its row of the figure alone, as `docs/figures/<study>_<task>.png`.
CPU seconds are those of the single-threaded training process with evaluation left out; processes
that share a machine's caches and cores lengthen each other's.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.axes import Axes

from benchmarks.studies import STUDIES, Study
from slipstream.report.statistics import bootstrap_interval, interquartile_mean

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"


@dataclass(frozen=True)
class Curve:
    """One run's evaluations of the actor that collects: steps, CPU seconds, means (n,)."""

    steps: np.ndarray
    cpu_seconds: np.ndarray
    values: np.ndarray
    switch: int | None
    handed_over: float | None
    rollbacks: int

    @property
    def last_quarter(self) -> float:
        """Mean of the evaluations in the last quarter of the steps, none from before a switch.

        One evaluation alone may be luck.
        """
        begin = max(0.75 * self.steps[-1], self.switch or 0)
        return float(self.values[self.steps > begin].mean())


def read(folder: Path, measure: str) -> Curve:
    """The evaluations of one run; `measure`: return or success_once."""
    points: dict[int, tuple[float, float]] = {}
    switch, handed_over, rollbacks, accelerator = None, None, 0, None
    for text in (folder / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line.get("event") == "switch":
            switch, handed_over = line["step"], accelerator
        rollbacks += line.get("event") == "rollback"
        accelerator = line.get(f"eval/accelerator/{measure}", accelerator)
        actor = {"accelerate": "accelerator", "online": "transformer"}.get(line.get("stage"), "sb3")
        value = line.get(f"eval/{actor}/{measure}")
        if value is not None:
            points[line["step"]] = (line["cpu_seconds"], value)
    steps = np.array(sorted(points))
    cpu, values = np.array([points[step] for step in steps]).T
    if switch == steps[-1]:  # a switch that comes at the end is none
        switch = None
    return Curve(steps, cpu, values, switch, handed_over, rollbacks)


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap interval over seeds, (num_seeds, ...) -> two of (...)."""
    if len(values) < 2:
        return values[0], values[0]
    return bootstrap_interval(values)


def draw(axes: list[Axes], task: str, study: Study, curves: dict[str, list[Curve]]) -> None:
    """One row of the figure."""
    by_steps, by_time = axes
    for variant, runs in curves.items():
        label, colour = study.variants[variant].label, study.variants[variant].colour
        for run in runs:
            by_steps.plot(run.steps, run.values, color=colour, alpha=0.25, lw=0.8)
            if run.switch is not None:
                by_steps.axvline(run.switch, color=colour, alpha=0.35, lw=0.8, ls=":")
        grid = runs[0].steps
        values = np.stack([np.interp(grid, run.steps, run.values) for run in runs])
        cpu = np.mean([np.interp(grid, run.steps, run.cpu_seconds) for run in runs], 0)
        bounds = interval(values)
        for axis, x in ((by_steps, grid), (by_time, cpu)):
            axis.plot(
                x,
                interquartile_mean(values),
                color=colour,
                lw=2,
                label=f"{label} ({len(runs)} seed{'s' * (len(runs) > 1)})",
            )
            axis.fill_between(x, *bounds, color=colour, alpha=0.12, lw=0)
    wanted = study.tasks[task]
    by_steps.set(
        title=task,
        xlabel="env steps, all counted",
        ylabel=f"{wanted.measure}, {wanted.episodes} episodes",
    )
    by_time.set(title=f"{task}, over time", xlabel="CPU seconds on one core, evaluation left out")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)


def main(name: Annotated[str, tyro.conf.Positional], task: str | None = None) -> None:
    """Draw what is there of the study `name`, or of one of its tasks."""
    study, results = STUDIES[name], RESULTS / name
    mpl.use("Agg")
    plt.rcParams.update({"font.size": 9, "axes.titleweight": "bold", "axes.titlesize": 10})
    tasks = {}
    for each in study.tasks if task is None else (task,):
        curves = {
            variant: [
                read(done.parent, study.tasks[each].measure)
                for done in sorted((results / each).glob(f"{variant}/*/done.json"))
            ]
            for variant in study.variants
        }
        found = {variant: runs for variant, runs in curves.items() if runs}
        if found:
            tasks[each] = found
    figure, axes = plt.subplots(
        len(tasks), 2, figsize=(12, 3.2 * len(tasks)), squeeze=False, layout="constrained"
    )
    rows = [
        "| task | method | at the end, each seed | IQM (95 % interval) | in the last quarter "
        "| CPU s | switch at |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, (each, curves) in zip(axes, tasks.items(), strict=True):
        draw(list(row), each, study, curves)
        row[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
        largest = max(abs(run.values).max() for runs in curves.values() for run in runs)
        digits = 0 if largest >= 10 else 2
        for variant, runs in curves.items():
            last = np.array([run.values[-1] for run in runs])
            low, high = interval(last)
            quarters = np.array([run.last_quarter for run in runs])
            switches = ", ".join(
                f"{r.switch} ({r.handed_over:.{digits}f})" for r in runs if r.switch
            )
            rollbacks = sum(run.rollbacks for run in runs)
            rows.append(
                f"| {each} | {study.variants[variant].label} | "
                f"{' / '.join(f'{x:.{digits}f}' for x in last)} | "
                f"{interquartile_mean(last):.{digits}f} ({low:.{digits}f} to {high:.{digits}f}) | "
                f"{interquartile_mean(quarters):.{digits}f} | "
                f"{np.mean([run.cpu_seconds[-1] for run in runs]):.0f} | "
                f"{switches}{f'; {rollbacks} rollbacks' if rollbacks else ''} |"
            )
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / f"{name}_{task or 'study'}.png", dpi=130)
    if task is not None:
        return
    note = (
        "CPU seconds come from runs that shared the two cores with each other and with other work: "
        "an order of size. "
        "Returns, or success_once where the figure says so. "
        "Steps: every env step of both stages; evaluation not counted, its seeds are fixed. "
        "IQM and bootstrap interval over seeds as in rliable (the mean, for three seeds). "
        "In the last quarter: the same of each run's mean over its evaluations there. "
        "In brackets behind a switch: what the accelerator reached there.\n"
    )
    (results / "table.md").write_text("\n".join(rows) + "\n\n" + note)
    print("\n".join(rows))


if __name__ == "__main__":
    tyro.cli(main)
