"""What tests of several folders share."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipstream.envs.maniskill.single import ManiSkillEnv
from slipstream.errors import SlipstreamError

MEMORY = Path("/dev/shm")


def pytest_configure() -> None:
    """Have `tmp_path` lie in memory where there is room.

    Runs sync every checkpoint, and wait for the disk as long as they work.
    """
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
