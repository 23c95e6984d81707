"""Run every command of the documentation as it is written, in a fresh clone.

    python -m scripts.docs_commands [PAGE ...] [--folder FOLDER]

The pages are read in the order of the site, the README before them; of each, the shell blocks line
by line and the Python blocks, which share one interpreter. Files and runs that a command leaves are
there for the next. What cannot be run as written is in the tables below, with the reason.

Nothing but Python's own library is needed: the first commands of the README make the environment.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scripts.docs_blocks import ROOT, blocks, pages, plain

LIMIT = 1800.0
"""Seconds after which a command has failed."""

SHORTER = shlex.split(
    "--total-steps 600 --learning-starts 250 --batch-size 32 --eval.every 300 --eval.episodes 3 "
    "--checkpoint-every 300 --keep-checkpoints 9 --cloning.burst 20 --data.clone-updates 50 "
    "--data.critic-updates 50"
)
"""Written behind every `slipstream train` and `slipstream branch`: they would take hours. The last
of two equal flags counts, so all else is what the page says."""
SHORTER_DISTIL = shlex.split("--total-steps 600 --own-episodes 1 --episodes 2")

ACCOUNT = "needs an account on the Hub"
MEASURES = "measures for an hour; its results are in the repository"
SKIPPED = {
    "make test": "the whole test suite: CI runs it",
    "make test lint type docs": "the whole test suite: CI runs it",
    "make docs-commands": "this",
    "make bench": MEASURES,
    "hf auth login": ACCOUNT,
    "slipstream push runs/pendulum --repo user/pendulum --private": ACCOUNT,
}
"""Commands that are not run -> why."""
SKIPPED_PYTHON = {"snapshot_download(": ACCOUNT}
"""Part of a Python block that is not run -> why."""

SERVERS = {"tensorboard --logdir runs", "trackio show --project slipstream"}
"""Commands that go on until they are stopped."""
SERVED = 30.0
"""Seconds after which one that still runs is stopped, and has done well."""

FOLDERS = {
    "bring-your-own-accelerator.md": "examples/bring_your_own",
    "bring-your-own-environment.md": "examples/bring_your_own",
}
"""Page -> the folder of the clone that it says its commands are typed in; the clone itself else."""

STAND_INS = {
    "hopper_sac.zip": """
import stable_baselines3
model = stable_baselines3.SAC("MlpPolicy", "Hopper-v5", learning_starts=50).learn(100)
model.save("hopper_sac.zip")
""",
    "minari:mujoco/hopper/medium-v0": """
import gymnasium, minari
from minari.data_collector import EpisodeBuffer
env = gymnasium.make("Hopper-v5")
episodes = []
for seed in range(30):
    observations, steps = [env.reset(seed=seed)[0]], []
    while not steps or not any(steps[-1][2:]):
        action = env.action_space.sample()
        obs, *rest, _ = env.step(action)
        observations.append(obs)
        steps.append((action, *rest))
    episodes.append(EpisodeBuffer(None, None, None, observations, *map(list, zip(*steps))))
minari.create_dataset_from_buffers("mujoco/hopper/medium-v0", episodes, env="Hopper-v5")
""",
}
"""Word that names what a reader has already -> a program that makes something like it."""

EARLIER = {"checkpoints/40000": "checkpoints/300"}
"""What only a run of full length leaves behind -> what a shorter one leaves."""


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    page: str
    command: str
    status: str
    seconds: float = 0.0
    reason: str = ""

    def __str__(self) -> str:
        told = f"  ({self.reason})" if self.reason else ""
        return f"{self.status:8} {self.seconds:6.0f} s  {self.page}: {self.command}{told}"


@dataclass
class Runner:
    """Runs commands in a clone.

    Args:
        clone: its folder.
        logs: where the output of every command goes.
        environment: variables of the commands.
    """

    clone: Path
    logs: Path
    environment: dict[str, str]
    done: dict[tuple[Path, str], Outcome] = field(default_factory=dict)

    def run_page(self, page: str, text: str) -> Iterator[Outcome]:
        """Run the commands of a page, one after the other."""
        folder = self.clone / FOLDERS.get(page, "")
        python: Python | None = None
        for block in blocks(text):
            if block.language == "sh":
                for command in block.commands:
                    yield self.run_command(page, command, folder)
                continue
            shown = f"python: {block.code.strip().splitlines()[0]} ..."
            reasons = [why for part, why in SKIPPED_PYTHON.items() if part in block.code]
            if reasons:
                yield Outcome(page, shown, "skipped", reason=reasons[0])
                continue
            if python is None:
                python = Python(folder, self.environment)
            started, log = time.monotonic(), self._log(page)
            ok = python.run(block.code, log)
            yield self._judge(page, shown, ok, time.monotonic() - started, log)
        if python is not None:
            python.close()

    def run_command(self, page: str, command: str, folder: Path) -> Outcome:
        """Run one command, unless a table or an earlier page has it."""
        name = plain(command)
        if name in SKIPPED:
            return Outcome(page, command, "skipped", reason=SKIPPED[name])
        before = self.done.get((folder, name))
        if before is not None:
            return Outcome(page, command, before.status, reason=f"as on {before.page}")
        log, started = self._log(page), time.monotonic()
        try:
            for word, program in STAND_INS.items():
                if word in command and not run_shell(
                    f"python -c {shlex.quote(program)}", folder, log, self.environment
                ):
                    raise LookupError(f"the stand-in for {word} could not be made")
            typed = self.shortened(command, folder)
        except LookupError as error:
            return Outcome(page, command, "FAILED", reason=f"{error}; see {log}")
        served = SERVED if name in SERVERS else None
        ok = run_shell(typed, folder, log, self.environment, served)
        outcome = self._judge(page, command, ok, time.monotonic() - started, log)
        self.done[folder, name] = outcome
        return outcome

    def shortened(self, command: str, folder: Path) -> str:
        """The command with the runs that it speaks of, and with less to train."""
        for late, early in EARLIER.items():
            command = command.replace(late, early)
        words = [self._found(word, folder) for word in command.split(" ")]
        kind = plain(command).split()[:2]
        if kind in (["slipstream", "train"], ["slipstream", "branch"]):
            words += SHORTER
        elif kind == ["slipstream", "distil"]:
            words += SHORTER_DISTIL
        return " ".join(words)

    def _found(self, word: str, folder: Path) -> str:
        """The newest path that a word with dots, or RUN, may stand for."""
        if word == "RUN":
            word = "runs/..."
        if "..." not in word:
            return word
        start, _, rest = word.partition("...")
        pattern = f"{start}*{rest}"
        found = list(folder.glob(pattern))
        if start.endswith("/"):  # a run somewhere below
            found = [path.parent for path in folder.glob(f"{start}**/config.json")]
            found = [path for path in found if (path / "checkpoints").is_dir()]
        if not found:
            raise LookupError(f"there is no {word}")
        return str(max(found, key=lambda path: path.stat().st_mtime).relative_to(folder))

    def _log(self, page: str) -> Path:
        self.logs.mkdir(parents=True, exist_ok=True)
        number = len(list(self.logs.iterdir())) + 1
        return self.logs / f"{number:03}-{page.removesuffix('.md')}.log"

    def _judge(self, page: str, command: str, ok: bool, seconds: float, log: Path) -> Outcome:
        if ok:
            return Outcome(page, command, "ok", seconds)
        lines = log.read_text(errors="replace").strip().splitlines()
        return Outcome(page, command, "FAILED", seconds, f"{lines[-1] if lines else ''}; see {log}")


def run_shell(
    command: str,
    folder: Path,
    log: Path,
    environment: dict[str, str],
    served: float | None = None,
) -> bool:
    """Run a line of shell.

    Args:
        command: the line.
        folder: where it is typed.
        log: what it prints is appended to this file.
        environment: its variables.
        served: seconds after which a server that still runs has done well.

    Returns:
        Whether it ended well.
    """
    with log.open("a") as file:
        file.write(f"$ {command}\n")
        file.flush()
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(LIMIT if served is None else served) == 0 and served is None
        except subprocess.TimeoutExpired:
            return served is not None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()


class Python:
    """An interpreter that runs the blocks of a page, one after the other.

    Args:
        folder: where it is started.
        environment: its variables.
    """

    PROGRAM = """
import json, sys, traceback
space, ended, real = {"__name__": "__main__"}, {True: "ok", False: "failed"}, sys.stdout
for line in sys.stdin:
    ok = True
    try:
        exec(compile(json.loads(line), "the page", "exec"), space)
    except BaseException:
        traceback.print_exc()
        ok = False
    sys.stderr.flush()
    print("\\n\\0" + ended[ok], file=real, flush=True)
"""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["python", "-c", self.PROGRAM],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, code: str, log: Path) -> bool:
        """Run a block; whether it ended well."""
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        try:
            with log.open("w") as file:
                file.write(code)
                process.stdin.write(json.dumps(code) + "\n")
                process.stdin.flush()
                for line in process.stdout:
                    if line.startswith("\0"):
                        return line.strip("\0\n") == "ok"
                    file.write(line)
            return False
        except BrokenPipeError:
            return False
        finally:
            timer.cancel()

    def close(self) -> None:
        """End it."""
        self.process.communicate()


def fresh_clone(folder: Path) -> Path:
    """Clone the last commit; an environment that was made there before is kept."""
    clone, kept = folder / "slipstream", folder / "venv"
    if (clone / ".venv").exists():
        shutil.rmtree(kept, ignore_errors=True)
        (clone / ".venv").rename(kept)
    shutil.rmtree(clone, ignore_errors=True)
    shutil.rmtree(folder / "logs", ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    if kept.exists():
        kept.rename(clone / ".venv")
    return clone


def environment_of(clone: Path) -> dict[str, str]:
    """The environment activated, nothing of the caller's Python, and nothing that leaves here."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {
        "PATH": f"{clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "WANDB_MODE": "offline",
        "TRACKIO_DIR": str(clone.parent / "trackio"),
        "MINARI_DATASETS_PATH": str(clone.parent / "minari"),
    }


def main() -> int:
    """Run the pages that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as deploy.md; all if none")
    parser.add_argument(
        "--folder", type=Path, help="for the clone and the logs; its .venv serves again next time"
    )
    options = parser.parse_args()
    chosen = [page for page in pages() if not options.pages or page.name in options.pages]
    unknown = set(options.pages) - {page.name for page in chosen}
    if unknown:
        names = ", ".join(page.name for page in pages())
        parser.error(f"there is no page {sorted(unknown)[0]}; choose of {names}")
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="slipstream-docs-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    clone = fresh_clone(folder)
    print(f"the clone: {clone}; written behind every training: {shlex.join(SHORTER)}", flush=True)
    runner = Runner(clone, folder / "logs", environment_of(clone))
    if chosen[0].name != "README.md":  # which begins with it
        print(runner.run_command("(before)", "make setup", clone), flush=True)
    outcomes: list[Outcome] = []
    for page in chosen:
        for outcome in runner.run_page(page.name, (clone / page.relative_to(ROOT)).read_text()):
            outcomes.append(outcome)
            print(outcome, flush=True)
    count = {status: 0 for status in ("ok", "skipped", "FAILED")}
    for outcome in outcomes:
        count[outcome.status] += 1
    print(", ".join(f"{number} {status}" for status, number in count.items()))
    return 1 if count["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
