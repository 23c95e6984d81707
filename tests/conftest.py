"""What tests of several folders share."""

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipstream.envs.maniskill.single import ManiSkillEnv
from slipstream.errors import SlipstreamError

MEMORY = Path("/dev/shm")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let CI say which tests may be left out."""
    parser.addoption(
        "--skips",
        metavar="REGEX",
        help="fail if a test is skipped for a reason that this does not match",
    )


class _Skips:
    """Fails a session whose skips were not expected: a test that never runs cannot fail."""

    def __init__(self, allowed: str) -> None:
        self._allowed = re.compile(allowed)
        self._found: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skip, in whatever process its test ran."""
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            if not self._allowed.search(reason):
                self._found.append(f"{report.nodeid}: {reason}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a whole file that was skipped."""
        if report.skipped:
            reason = str(report.longrepr)
            if not self._allowed.search(reason):
                self._found.append(f"{report.nodeid}: {reason}")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name them."""
        if self._found:
            terminalreporter.section(f"skipped, and not expected: {self._allowed.pattern}")
            for line in self._found:
                terminalreporter.line(line)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail for them."""
        if self._found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    """Watch the skips if asked to, and have `tmp_path` lie in memory where there is room.

    Runs sync every checkpoint, and wait for the disk as long as they work.
    """
    allowed = config.getoption("--skips")
    if allowed and not hasattr(config, "workerinput"):  # xdist's workers report to their controller
        config.pluginmanager.register(_Skips(allowed))
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2**31:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(scope="session")
def pull_cube() -> Iterator[ManiSkillEnv]:
    """A PullCube to look at, where ManiSkill and a Vulkan device are; else the test is skipped.

    It lasts as long as the tests do: when the last scene of a process goes, its renderer goes with
    it, and the next one compiles its shaders anew, which takes ten seconds.
    """
    if importlib.util.find_spec("mani_skill") is None:
        pytest.skip("ManiSkill is not installed: make setup-maniskill")
    try:
        task = ManiSkillEnv("PullCube-v1")
    except SlipstreamError as error:  # no Vulkan device
        pytest.skip(str(error))
    from slipstream.training.machine import spare_collector

    with spare_collector():  # among all objects of all tests
        yield task
    task.close()
