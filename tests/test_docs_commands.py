"""Every `slipstream ...` in the documentation is a command that this version understands."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import tyro

from slipstream import cli
from slipstream.cli import policies, reading, runs
from slipstream.config import RunConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTIONS = {
    "resume": runs.ResumeOptions,
    "evaluate": runs.EvaluateOptions,
    "export": policies.ExportOptions,
    "push": policies.PushOptions,
    "distil": policies.DistilOptions,
    "report": reading.ReportOptions,
    "presets": reading.PresetsOptions,
    "doctor": reading.DoctorOptions,
}


def commands(text: str) -> list[str]:
    """The commands in a page's shell blocks and, with arguments, in its running text."""
    shell = re.findall(r"^```(?:sh|bash)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line.split(" #")[0].strip() for block in shell for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += re.findall(r"`((?:\.venv/bin/)?slipstream \w+ [^`]+)`", prose)
    found = [" ".join(line.removeprefix(".venv/bin/").split()) for line in lines]
    return [line for line in found if line.startswith("slipstream ")]


ALL = sorted({command for page in PAGES for command in commands(page.read_text())})


def test_the_commands_are_found():
    assert len(ALL) > 40
    assert {command.split()[1] for command in ALL} >= set(cli.COMMANDS)


@pytest.mark.parametrize("command", ALL)
def test_a_command_of_the_documentation_parses(command, capsys, monkeypatch, tmp_path):
    name, *arguments = shlex.split(command)[1:]
    if name == "COMMAND" or "..." in arguments:
        return  # an explanation of all of them, or of a flag alone
    assert name in cli.COMMANDS
    if "--help" in arguments:
        with pytest.raises(SystemExit) as done:
            cli.main([name, *arguments])
        assert done.value.code == 0
    elif name == "branch":  # its flags are those of a run that is not there
        start = runs.Branch(runs.BranchOptions(tyro.MISSING), RunConfig("ENV"))
        tyro.cli(runs.Branch, args=arguments, default=start)
    elif name != "train":
        tyro.cli(OPTIONS[name], args=arguments)
    else:
        monkeypatch.chdir(tmp_path)
        if "--config" in arguments:  # a file that another command has written
            file = arguments[arguments.index("--config") + 1]
            assert cli.main(["train", arguments[0], "--print-config"]) == 0
            Path(file).write_text(capsys.readouterr().out)
        assert cli.main([name, *arguments, "--print-config"]) == 0
        assert "env_id:" in capsys.readouterr().out


def test_the_reference_has_every_flag_of_every_command():
    hook = runpy.run_path(str(ROOT / "scripts" / "command_reference.py"))
    page = hook["on_page_markdown"]((ROOT / "docs" / "cli.md").read_text())
    assert hook["COMMANDS_MARK"] not in page
    for command in cli.COMMANDS:
        section = page[page.index(f"\n## {command}\n") :]
        printed = "\n".join(hook["help_lines"](command))
        flags = re.findall(r"^  (--[a-z][\w.-]+)", printed, re.MULTILINE)
        assert flags or command == "presets"
        for flag in flags:
            row = rf"^\| `{re.escape(flag)}`(?: `.*`)? \| .* \| \S.* \|$"
            assert re.search(row, section, re.M), flag
