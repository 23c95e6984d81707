"""The page on metrics defines every key that a run writes, and none that no run does."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slipstream.config import RunConfig
from slipstream.envs.setup import EnvConfig
from slipstream.stages.imitation import CloningConfig
from slipstream.stages.rehearsal import DataConfig
from slipstream.training import train
from tests.tiny_runs import TINY, lines, tiny

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
ACTORS = ("accelerator", "transformer", "random")


def documented() -> set[str]:
    """The keys in the first column of the page's tables, one for each actor where it stands."""
    cells = re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE)
    keys = {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}
    return {key.replace("<actor>", actor) for key in keys for actor in ACTORS}


def act(obs: np.ndarray) -> np.ndarray:
    """A policy that stays as it is."""
    return np.zeros(1)


RUNS: dict[str, RunConfig] = {
    "sac": tiny(cloning=replace(TINY.cloning, own_episodes=1)),
    "td3": tiny(algorithm="td3", cloning=replace(TINY.cloning, ascent=0.1)),
    "frozen": tiny(accelerator=f"python:{__name__}:act"),
    "data": tiny(accelerator="replay:sac", data=DataConfig(clone_updates=2, critic_updates=2)),
    "memory": tiny(accelerator="gru", transformer="lstm"),
    "scratch": tiny(stages=("online",), cloning=CloningConfig(enabled=False)),
    "success": tiny(env_id="catch:make", env=EnvConfig(max_episode_steps=20)),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, set[str]]:
    """Kind of run -> the keys that it wrote, and the names of its events."""
    found: dict[str, set[str]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples" / "bring_your_own")
        folder = tmp_path_factory.mktemp("runs")
        patch.chdir(folder)
        for name, config in RUNS.items():
            run_dir = train(config, folder / name, show_progress=False)
            log = lines(run_dir)
            events = {line["event"] for line in log if "event" in line}
            found[name] = {key for line in log for key in line} | events
    sys.modules.pop("catch", None)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_every_key_of_a_run_is_defined(name, written):
    explained = documented() | {"event", "reason"}
    assert written[name] - explained == set()


def test_nothing_is_defined_that_no_run_writes(written):
    never = documented() - set().union(*written.values())
    # The random policy is evaluated where there is a stage 1; these need a kill, a branch or bad
    # luck.
    assert never <= {"rollback", "resume", "branch", "no_video"}, never
