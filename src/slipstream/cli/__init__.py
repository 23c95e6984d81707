"""The command line: which commands there are, and how they end."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import tyro
from tyro.conf import Positional
from tyro.extras import literal_type_from_choices

from slipstream.cli.policies import distil, export, push
from slipstream.cli.reading import doctor, presets, report
from slipstream.cli.runs import branch, evaluate, resume, train
from slipstream.errors import Interrupted, SlipstreamError

INTERRUPTED = 130  # what shells make of Ctrl-C: 128 + SIGINT

COMMANDS = {
    "train": train,
    "resume": resume,
    "branch": branch,
    "evaluate": evaluate,
    "export": export,
    "push": push,
    "distil": distil,
    "report": report,
    "presets": presets,
    "doctor": doctor,
}


if TYPE_CHECKING:
    Name = str
else:
    Name = literal_type_from_choices(COMMANDS)


def choose(command: Positional[Name]) -> None:
    """Slipstream trains transformer policies in online reinforcement learning.

    Each command has a --help of its own.

    Args:
        command: What to do.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    A user's mistake is one line on standard error and exit status 2, an interrupt one line and 130.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        tyro.cli(choose, args=arguments[:1], prog="slipstream")
    try:
        return COMMANDS[arguments[0]](arguments[1:])
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
