"""The commands that only tell: report, presets, doctor."""

import dataclasses
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from slipstream.errors import SlipstreamError


@dataclass(frozen=True)
class ReportOptions:
    """Write one HTML page with the learning curves of one or more runs."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")]
    """Run folders; seeds of the same environment and preset are pooled."""
    out: Path | None = None
    """The page to write; report.html in the first run's folder by default."""


def report(arguments: Sequence[str]) -> int:
    """`slipstream report RUN...`."""
    options = tyro.cli(ReportOptions, args=arguments, prog="slipstream report")
    if not options.runs:
        raise SlipstreamError("no run was named; give one or more run folders")
    from slipstream.report.html import write_report

    out = options.runs[0] / "report.html" if options.out is None else options.out
    print(write_report(options.runs, out))
    return 0


@dataclass(frozen=True)
class PresetsOptions:
    """List the presets."""


def presets(arguments: Sequence[str]) -> int:
    """`slipstream presets`."""
    tyro.cli(PresetsOptions, args=arguments, prog="slipstream presets")
    from slipstream.presets import CHOICES, PRESETS

    width = max(map(len, PRESETS))
    for name, function in PRESETS.items():
        summary = (inspect.getdoc(function) or "").splitlines()[0]
        print(f"{name:{width}}  {summary}")
    print("\nWith most of them, and `slipstream train --help` for all there are:")
    width = max(map(len, CHOICES))
    for flags, summary in CHOICES.items():
        print(f"{flags:{width}}  {summary}")
    return 0


@dataclass(frozen=True)
class DoctorOptions:
    """Tell what is installed and works here, and how to get what does not."""

    json: bool = False
    """Print one JSON object instead of a table."""


def doctor(arguments: Sequence[str]) -> int:
    """`slipstream doctor`."""
    options = tyro.cli(DoctorOptions, args=arguments, prog="slipstream doctor")
    from slipstream.doctor import all_required, examine, show

    findings = list(examine()) if options.json else show(examine())
    ok = all_required(findings)
    if options.json:
        found = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"ok": ok, "findings": found}))
    return 0 if ok else 1
