"""Writes the report: one HTML file that needs nothing beside it, and its pictures as PNGs."""

import base64
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from slipstream.errors import SlipstreamError
from slipstream.report.figures import Picture, comparison_pictures, group_pictures, save
from slipstream.report.films import Film, films_of
from slipstream.report.runs import Run, group_runs, load_runs
from slipstream.report.statistics import Estimate
from slipstream.report.summary import (
    GroupSummary,
    Verdict,
    compare,
    duration,
    judge,
    number,
    signed,
    summarise_group,
)
from slipstream.report.theme import DARK, LIGHT

HISTORY = {
    "accelerator": "brought its accelerator along",
    "data": "learnt from data",
    "switch": "switched to the transformer",
    "rollback": "went back to its best snapshot",
    "resume": "was resumed",
    "branch": "branched",
}


def write_report(run_dirs: Sequence[Path], out: Path) -> Path:
    """Writes one report over all given runs.

    Seeds of the same settings are taken together; several methods on one environment are also
    compared in one picture.

    Args:
        run_dirs: run folders, or folders with runs somewhere below them.
        out: a folder, made if missing, which then holds `report.html` and `figures/*.png`; or
            the HTML file itself, whose pictures then go to `<name>_figures/` beside it.

    Returns:
        The path of the HTML file.

    Raises:
        SlipstreamError: nothing to report on, a folder that is no run, or a disk that refuses.
    """
    try:
        return _write(run_dirs, out)
    except OSError as error:
        raise SlipstreamError(
            f"cannot write {error.filename or out}: {error.strerror}; choose another place with "
            "--out"
        ) from error


def _write(run_dirs: Sequence[Path], out: Path) -> Path:
    summaries = [summarise_group(group) for group in group_runs(load_runs(run_dirs))]

    page = out if out.suffix == ".html" else out / "report.html"
    figures = page.parent / (f"{out.stem}_figures" if out.suffix == ".html" else "figures")
    figures.mkdir(parents=True, exist_ok=True)

    sections = [
        _section(summary, "" if len(summaries) == 1 else f"{index}-", figures)
        for index, summary in enumerate(summaries, start=1)
    ]
    page.write_text(
        _template().render(
            title=_title(summaries),
            sections=sections,
            comparisons=_comparisons(summaries, figures),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            figures=figures.name,
            style=_resource("report.css"),
        ),
        encoding="utf-8",
    )
    return page


@dataclass(frozen=True)
class Image:
    """A picture in both colour schemes, as data URIs."""

    light: str
    dark: str
    caption: str
    wide: bool
    width: int
    height: int


@dataclass(frozen=True)
class ShownFilm:
    """An episode as data URIs: some seconds that move, and stills of all of it."""

    moving: str
    strip: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """One headline number."""

    label: str
    value: str
    note: str
    tone: str = ""


@dataclass(frozen=True)
class Section:
    """Everything the page says of one group of seeds."""

    anchor: str
    env_id: str
    name: str
    kind: str
    verdict: Verdict
    cards: list[Card]
    history: list[str]
    images: list[Image]
    films: list[ShownFilm]
    film_problems: list[str]
    header: list[str]
    rows: list[list[str]]
    config: str
    config_name: str
    versions: list[tuple[str, str]]
    commands: list[str]


def _section(summary: GroupSummary, prefix: str, figures: Path) -> Section:
    group = summary.group
    header, rows = _seed_table(summary)
    first = group.runs[0]
    films, problems = films_of(group.runs)
    return Section(
        anchor=f"group-{prefix or '1-'}"[:-1],
        env_id=group.env_id,
        name=group.name,
        kind=_kind(summary),
        verdict=judge(summary),
        cards=_cards(summary),
        history=[
            *(sentence for run in group.runs for sentence in _history(run)),
            *(f"{run.path} repeats seed {run.seed} and is passed over" for run in group.repeats),
        ],
        images=[_image(picture, figures) for picture in group_pictures(summary, prefix)],
        films=[_shown(film, prefix, figures) for film in films],
        film_problems=problems,
        header=header,
        rows=rows,
        config=yaml.safe_dump(json.loads(json.dumps(first.config, default=str)), sort_keys=False),
        config_name=f"seed {first.seed}",
        versions=[(name, str(value)) for name, value in first.versions.items()],
        commands=_commands(group.runs),
    )


def _kind(summary: GroupSummary) -> str:
    """What was trained, in a line."""
    group = summary.group
    algorithm = str(group.runs[0].config.get("algorithm", "")).upper()
    seeds = f"{len(group.runs)} seed" + ("s" if len(group.runs) > 1 else "")
    return " · ".join(part for part in (algorithm, group.kind, seeds) if part)


def _cards(summary: GroupSummary) -> list[Card]:
    cards: list[Card] = []
    if summary.transformer is not None and summary.group.actor == "transformer":
        cards.append(
            Card(
                "Transformer at the end",
                number(summary.transformer.value),
                _interval(summary.transformer),
                "transformer",
            )
        )
    if summary.accelerator is not None:
        where = "at the end" if summary.group.actor == "accelerator" else "at the switch"
        if all(run.switch_seconds is None for run in summary.runs):
            where = "at the end"
        cards.append(
            Card(
                f"Accelerator {where}",
                number(summary.accelerator.value),
                _interval(summary.accelerator),
                "accelerator",
            )
        )
    if summary.random is not None:
        cards.append(Card("Random policy", number(summary.random.value), "return it starts from"))
    runs = summary.group.runs
    stages = {
        stage: [run.steps[stage] for run in summary.runs if stage in run.steps]
        for stage in ("accelerate", "online")
    }
    cards.append(
        Card(
            "Counted steps" + (" a seed" if len(runs) > 1 else ""),
            _range([run.last_step for run in runs]),
            " + ".join(f"{_range(steps)} {stage}" for stage, steps in stages.items() if steps),
        )
    )
    cards.append(
        Card(
            "Evaluation steps",
            _range([run.eval_steps for run in runs]),
            "beside the counted ones; nothing learns from them",
        )
    )
    seconds = [run.wall_seconds for run in runs]
    speed = sum(run.last_step for run in runs) / max(sum(seconds), 1e-9)
    cards.append(
        Card(
            "Wall-clock" + (" a seed" if len(runs) > 1 else ""),
            duration(sum(seconds) / len(seconds)),
            f"{speed:,.0f} counted steps a second, all included",
        )
    )
    return cards


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "return, mean over evaluation episodes"
    return f"IQM of {estimate.num_seeds} seeds, 95 % {number(estimate.low)} to " + number(
        estimate.high
    )


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _history(run: Run) -> list[str]:
    """When and why the run switched, went back or was resumed, one sentence each."""
    sentences: list[str] = []
    for event in run.events:
        what = HISTORY.get(event["event"])
        if what is None:
            continue
        reason = f": {event['reason']}" if event.get("reason") else ""
        sentences.append(
            f"Seed {run.seed} {what} at step {event['step']:,} "
            f"({duration(run.wall_at(event['step']))}){reason}"
        )
    return sentences


def _seed_table(summary: GroupSummary) -> tuple[list[str], list[list[str]]]:
    """The table of seeds; a column that no seed can fill is left out."""
    rows: list[dict[str, str]] = []
    for run in summary.runs:
        final = number(run.final_transformer)
        if run.final_transformer_std is not None:
            final += f" ± {number(run.final_transformer_std, like=run.final_transformer)}"
        switch = run.run.switch
        row = {
            "seed": str(run.run.seed),
            "transformer, end": final,
            "accelerator, switch": number(run.handed_over),
            "difference": signed(run.gain) if run.gain is not None else number(None),
            "transformer, best": number(run.best_transformer),
            "switch at": f"{switch['step']:,}, {duration(run.switch_seconds)}"
            if switch
            else number(None),
            "steps": f"{run.run.last_step:,}",
            "eval steps": f"{run.run.eval_steps:,}",
            "rows of data": f"{run.data_rows:,}" if run.data_rows is not None else number(None),
            "wall-clock": duration(run.run.wall_seconds),
            "rollbacks": str(len(run.run.rollbacks)) if run.run.rollbacks else number(None),
        }
        success = run.run.series(f"eval/{summary.group.actor}/success_once").value
        if len(success):
            row["success, end"] = f"{100 * success[-1]:.0f} %"
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    dash = number(None)
    header = [name for name in names if any(row.get(name, dash) != dash for row in rows)]
    return header, [[row.get(name, dash) for name in header] for row in rows]


def _commands(runs: Sequence[Run]) -> list[str]:
    commands: list[str] = []
    for run in runs:
        path = shlex.quote(run.path.as_posix())
        verbs = ["evaluate"] if run.finished else ["resume", "evaluate"]
        commands += [f"slipstream {verb} {path}" for verb in verbs]
    return commands


def _comparisons(summaries: Sequence[GroupSummary], figures: Path) -> list[dict[str, Any]]:
    """For each environment with several groups: a table and the overlaid curves."""
    comparisons: list[dict[str, Any]] = []
    for env_id in dict.fromkeys(summary.group.env_id for summary in summaries):
        members = [summary for summary in summaries if summary.group.env_id == env_id]
        if len(members) < 2:
            continue
        rows = [
            [
                f"{member.group.name} · {member.group.kind}",
                number(member.final.value) if member.final else number(None),
                f"{number(member.final.low)} to {number(member.final.high)}"
                if member.final and member.final.low is not None
                else number(None),
                str(len(member.group.runs)),
                _range([run.last_step for run in member.group.runs]),
                _range([run.eval_steps for run in member.group.runs]),
                duration(
                    sum(run.wall_seconds for run in member.group.runs) / len(member.group.runs)
                ),
            ]
            for member in sorted(
                members, key=lambda m: m.final.value if m.final else float("-inf"), reverse=True
            )
        ]
        prefix = "".join(c if c.isalnum() else "-" for c in env_id).strip("-").lower() + "-"
        groups = [member.group for member in members]
        comparisons.append(
            {
                "env_id": env_id,
                "verdict": compare(members),
                "header": [
                    "method",
                    "final return",
                    "95 % interval",
                    "seeds",
                    "steps a seed",
                    "eval steps",
                    "wall-clock a seed",
                ],
                "rows": rows,
                "images": [
                    _image(picture, figures)
                    for picture in comparison_pictures(env_id, groups, prefix)
                ],
            }
        )
    return comparisons


def _image(picture: Picture, figures: Path) -> Image:
    light, dark = (_data_uri(save(picture, theme, figures)) for theme in (LIGHT, DARK))
    width, height = (round(100 * side) for side in picture.size)
    return Image(light, dark, picture.caption, picture.size[0] > 8, width, height)


def _shown(film: Film, prefix: str, figures: Path) -> ShownFilm:
    moving = figures / f"{prefix}film-{film.actor}.webp"
    strip = figures / f"{prefix}film-{film.actor}-strip.webp"
    moving.write_bytes(film.moving)
    strip.write_bytes(film.strip)
    return ShownFilm(_data_uri(moving), _data_uri(strip), film.caption, *film.size)


def _data_uri(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:image/{path.suffix[1:]};base64,{content}"


def _title(summaries: Sequence[GroupSummary]) -> str:
    return ", ".join(dict.fromkeys(summary.group.env_id for summary in summaries))


def _template() -> Any:
    # Every value is escaped: run folders may come from others, and a name is no markup.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_resource("report.html.jinja"))


def _resource(name: str) -> str:
    return resources.files("slipstream.report").joinpath(name).read_text(encoding="utf-8")
