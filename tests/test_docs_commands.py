"""Every `slipstream ...` in the documentation is a command that this version understands.

`scripts/docs_commands.py` runs them all, which takes over an hour; small pages try it out here.
"""

import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import tyro
from scripts import docs_commands
from scripts.docs_blocks import blocks, pages, plain
from scripts.docs_commands import Runner, environment_of

from slipstream import cli
from slipstream.cli import policies, reading, runs
from slipstream.config import RunConfig

ROOT = Path(__file__).parents[1]
PAGES = pages()
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
    shell = [block for block in blocks(text) if block.language == "sh"]
    lines = [line for block in shell for line in block.commands]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += re.findall(r"`((?:\.venv/bin/)?slipstream \w+ [^`]+)`", prose)
    found = [" ".join(plain(line).split()).split(" > ")[0] for line in lines]
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


def test_every_page_is_read():
    assert set(PAGES) >= set((ROOT / "docs").glob("*.md"))


def test_the_tables_of_what_is_not_run_name_what_is_there():
    text = "".join(page.read_text() for page in PAGES)
    shell = [plain(line) for block in blocks(text) for line in block.commands]
    assert {*docs_commands.SKIPPED, *docs_commands.SERVERS} <= set(shell)
    for word in (*docs_commands.STAND_INS, *docs_commands.EARLIER):
        assert any(word in line for line in shell), word
    for part in docs_commands.SKIPPED_PYTHON:
        assert any(part in block.code for block in blocks(text) if block.language == "python")


@pytest.fixture
def runner(tmp_path):
    """Of a clone that holds nothing, with this interpreter as its `python`."""
    clone = tmp_path / "clone"
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return Runner(clone, tmp_path / "logs", environment_of(clone))


def test_a_page_is_run_as_it_is_written(runner):
    page = """
```sh
echo 1 > a  # the first
cat a
cat b       # is not there
make test
```

```python
--8<-- "a/file.py"
```

```python
a = int(open("a").read())
```

```python
assert a == 2, "a is another"
```

```python
print(a)
```

```sh
cat a
```
"""
    found = list(runner.run_page("page.md", page))
    assert [outcome.status for outcome in found] == [
        *("ok", "ok", "FAILED", "skipped", "ok", "FAILED", "ok", "ok")
    ]
    assert "No such file" in found[2].reason
    assert "AssertionError: a is another" in found[5].reason
    assert found[7].reason == "as on page.md"


def test_what_a_command_speaks_of_is_the_newest_run(runner):
    for number, name in enumerate(("seed0-1", "seed0-2", "seed1-3")):
        run = runner.clone / "runs" / "Env" / "default" / name
        (run / "checkpoints" / "300" / "policy").mkdir(parents=True)
        for folder in (run, run / "checkpoints" / "300" / "policy"):
            (folder / "config.json").touch()
        os.utime(run, (number, number))

    def typed(command):
        return runner.shortened(command, runner.clone)

    runs = "runs/Env/default"
    assert typed("slipstream export runs/Env/... --to onnx") == (
        f"slipstream export {runs}/seed1-3 --to onnx"
    )
    assert typed(f"slipstream resume {runs}/seed0-...") == f"slipstream resume {runs}/seed0-2"
    branched = typed(f".venv/bin/slipstream branch {runs}/seed0-.../checkpoints/40000")
    assert branched.startswith(
        f".venv/bin/slipstream branch {runs}/seed0-2/checkpoints/300 --total"
    )
    assert typed("slipstream evaluate RUN") == f"slipstream evaluate {runs}/seed1-3"
    assert typed("slipstream train Env --seed 1").endswith(" ".join(docs_commands.SHORTER))
    with pytest.raises(LookupError, match="there is no runs/Other"):
        typed("slipstream resume runs/Other/...")


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
