"""A hook of MkDocs: the page on the command line is made from what each command's --help prints."""

import html
import inspect
import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from typing import Any

from slipstream import cli
from slipstream.presets import CHOICES, PRESETS

COMMANDS_MARK, PRESETS_MARK = "<!-- every command -->", "<!-- every preset -->"
FLAG = re.compile(r"^  (?P<flag>\S.*?)(?:  +(?P<help>\S.*))?$")
DEFAULT = re.compile(r" ?\((?:default: (?P<default>.*)|(?P<required>required))\)$")

Entries = list[tuple[str, str]]
"""A flag as it is printed, and what is said about it."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the references in the places of the marks."""
    if COMMANDS_MARK in markdown:
        commands = "\n\n".join(map(command_reference, cli.COMMANDS))
        markdown = markdown.replace(COMMANDS_MARK, commands)
    return markdown.replace(PRESETS_MARK, presets_table())


def presets_table() -> str:
    """Markdown: each preset and the first line of what it says of itself, then flags beside it."""
    rows = [
        f"| `{name}` | {(inspect.getdoc(function) or '').splitlines()[0]} |"
        for name, function in PRESETS.items()
    ]
    choices = [f"| `{flags}` | {summary} |" for flags, summary in CHOICES.items()]
    return "\n".join(
        [
            *("| preset | |", "|---|---|", *rows),
            *("", "With most of them:", ""),
            *("| flags | |", "|---|---|", *choices),
        ]
    )


def command_reference(command: str) -> str:
    """Markdown: usage, summary, and a table for each group of the command's flags."""
    lines = help_lines(command)
    usage, summary = lines[0].removeprefix("usage: "), lines[2]
    found = list(groups(lines[3:]))
    own = [entry for title, _, entries in found if not title for entry in entries]
    parts = [f"## {command}", f"```text\n{usage}\n```", summary, table(own)]
    for title, described, entries in found:
        if title:
            parts += [f"### {title} {{ #{command}-{title} }}", described, table(entries)]
    return "\n\n".join(part for part in parts if part)


def table(entries: Entries) -> str:
    """Markdown; nothing where there are no flags."""
    shown = [entry for entry in entries if not entry[0].startswith("-h")]
    rows = [f"| {' | '.join(row)} |" for row in map(table_row, shown)]
    return "\n".join(["| flag | default | |", "|---|---|---|", *rows]) if rows else ""


def help_lines(command: str) -> list[str]:
    """What `slipstream COMMAND --help` prints, in a terminal of a hundred columns."""
    printed, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with redirect_stdout(printed), suppress(SystemExit):
            cli.main([command, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return [line.rstrip() for line in printed.getvalue().splitlines()]


def groups(lines: list[str]) -> Iterator[tuple[str, str, Entries]]:
    """Title (empty for the command's own flags), description and flags of each group."""
    title, described, entries = "", "", Entries()
    for line in lines:
        if started := re.match(r"^ (\S.*) (?:options|arguments)$|^ options$", line):
            yield title, described, entries
            title = "" if started[1] in (None, "positional") else started[1]
            described, entries = "", []
        elif re.match(r"^ +-+$", line):  # what stood above it was no flag
            described, entries = " ".join(" ".join(entry) for entry in entries).strip(), []
        elif line.startswith("   "):
            flag, meaning = entries[-1]
            entries[-1] = flag, f"{meaning} {line.strip()}".strip()
        elif found := FLAG.match(line):
            entries.append((found["flag"], found["help"] or ""))
    yield title, described, entries


def table_row(entry: tuple[str, str]) -> tuple[str, str, str]:
    """Flag, default and meaning as the cells of a row, in one line."""
    flag, meaning = entry
    found, default = DEFAULT.search(meaning), ""
    if found:
        meaning = meaning[: found.start()]
        default = "required" if found["required"] else f"`{found['default'] or '(none)'}`"
    # What follows the flag is apart from it, so that only a flag is kept from breaking.
    name, _, values = flag.replace(", ", " ").replace("{None}|", "").partition(" ")
    return f"`{name}`" + (f" `{values}`" if values else ""), default, as_text(meaning)


def as_text(meaning: str) -> str:
    """What is said of a flag, with nothing in it that Markdown or HTML would take for its own."""
    parts = meaning.split("`")
    parts[::2] = [html.escape(part, quote=False).replace("|", "\\|") for part in parts[::2]]
    return "`".join(parts)
