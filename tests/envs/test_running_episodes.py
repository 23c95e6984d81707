"""What is told of an episode that ended."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from slipstream.envs.making import make_env
from tests.envs.vectors import Report, sync


@pytest.mark.parametrize("wrap", [list, *(sync(mode) for mode in AutoresetMode)])
@pytest.mark.parametrize(
    ("key", "success_at", "expected"),
    [("success", (2,), True), ("is_success", (3,), True), ("success", (), False), (None, (), None)],
)
def test_success_is_true_if_reported_at_any_step(wrap, key, success_at, expected):
    env = make_env(wrap([lambda: Report(key=key, success_at=success_at)]))
    env.reset()
    episodes = [e for _ in range(8) for e in env.step(np.zeros((1, 1))).episodes]
    assert len(episodes) == 2
    assert all(e.success is expected and e.length == e.episode_return == 3 for e in episodes)


@pytest.mark.parametrize("wrap", [list, *(sync(mode) for mode in AutoresetMode)])
def test_success_is_told_apart_between_envs(wrap):
    env = make_env(
        wrap([lambda: Report(key=None), lambda: Report(success_at=(1,)), lambda: Report(length=2)])
    )
    env.reset()
    episodes = [e for _ in range(8) for e in env.step(np.zeros((3, 1))).episodes]
    told = {(e.env_index, e.success) for e in episodes}
    assert told == {(0, None), (1, True), (2, False)}
