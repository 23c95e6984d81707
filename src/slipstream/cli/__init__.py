"""The command line: which commands there are, and how they end."""

import sys
from collections.abc import Sequence
from inspect import getdoc
from typing import TYPE_CHECKING

import tyro
from tyro.conf import Positional
from tyro.extras import literal_type_from_choices

from slipstream.cli import policies, reading, runs
from slipstream.errors import Interrupted, SlipstreamError

INTERRUPTED = 130  # what shells make of Ctrl-C: 128 + SIGINT

COMMANDS = {
    "train": (runs.train, runs.Train),
    "resume": (runs.resume, runs.ResumeOptions),
    "branch": (runs.branch, runs.Branch),
    "evaluate": (runs.evaluate, runs.EvaluateOptions),
    "export": (policies.export, policies.ExportOptions),
    "push": (policies.push, policies.PushOptions),
    "distil": (policies.distil, policies.DistilOptions),
    "report": (reading.report, reading.ReportOptions),
    "presets": (reading.presets, reading.PresetsOptions),
    "doctor": (reading.doctor, reading.DoctorOptions),
}
"""Name -> what it does, and its options, whose docstring says so."""


if TYPE_CHECKING:
    Name = str
else:
    Name = literal_type_from_choices(COMMANDS)


def choose(command: Positional[Name]) -> None:
    """The first argument.

    Args:
        command: What to do; each has a --help of its own.
    """


def _description() -> str:
    lines = (f"- {name}: {getdoc(options)}" for name, (_, options) in COMMANDS.items())
    about = "Slipstream trains transformer policies in online reinforcement learning."
    return "\n".join([f"{about}\n", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    A user's mistake is one line on standard error and exit status 2, an interrupt one line and 130.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        tyro.cli(choose, args=arguments[:1], prog="slipstream", description=_description())
    run, _ = COMMANDS[arguments[0]]
    try:
        return run(arguments[1:])
    except Interrupted as error:
        print(f"slipstream: {error}", file=sys.stderr)
        return INTERRUPTED
    except SlipstreamError as error:
        print(f"slipstream: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("slipstream: interrupted", file=sys.stderr)
        return INTERRUPTED


def script() -> None:
    """The `slipstream` command."""
    sys.exit(main())
