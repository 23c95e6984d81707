"""Whole episodes in and out of a replay."""

import numpy as np
import pytest

from slipstream.replay.buffer import ReplayBuffer
from slipstream.replay.episodes import Episodes, fill, read_replay
from slipstream.spec import ArraySpec, EnvSpec

SPEC = EnvSpec("x", {"state": ArraySpec((2,))}, (-1.0,), (1.0,))


def numbered(*lengths: int) -> Episodes:
    """Episodes whose every value tells the episode and the step."""
    parts = []
    for i, n in enumerate(lengths):
        value = 100.0 * i + np.arange(n + 1, dtype=np.float32)
        parts.append(
            {
                "obs.state": np.stack([value, -value], 1),
                "action": value[:, None] / 1000,
                "reward": np.where(np.arange(n + 1) < n, 1.0 + i % 3, 99.0).astype(np.float32),
                "terminated": np.float32(np.arange(n + 1) == n - 1),
                "step": np.arange(n + 1, dtype=np.int32),
            }
        )
    return Episodes({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def test_the_last_rows_reward_is_none():
    episodes = numbered(3, 5, 2)
    assert episodes.lengths.tolist() == [3, 5, 2] and episodes.num_transitions == 10
    assert episodes.returns.tolist() == [3, 10, 6]


def test_the_best_and_the_newest_are_whole_episodes():
    episodes = numbered(3, 5, 2, 4)  # returns 3, 10, 6, 4
    assert episodes.best(0.5).lengths.tolist() == [5, 2]
    assert episodes.best(0.01).lengths.tolist() == [5]
    assert episodes.best(1).lengths.tolist() == [3, 5, 2, 4]
    assert episodes.newest(8).lengths.tolist() == [2, 4]
    assert episodes.newest(7).lengths.tolist() == [4]
    assert episodes.newest(2).num_rows == 0


@pytest.mark.parametrize("num_envs", [1, 2, 5])
@pytest.mark.parametrize("spare", [0, 7])
def test_a_replay_filled_at_once_gives_what_one_filled_by_steps_gives(num_envs, spare):
    episodes = numbered(3, 5, 2, 4)
    replay = ReplayBuffer(SPEC, episodes.capacity(num_envs) + spare * num_envs, num_envs)
    fill(replay, episodes)
    assert replay.num_transitions(3) == 14
    other = ReplayBuffer(SPEC, replay.capacity, num_envs)
    for env, ring in enumerate(episodes.rings(num_envs)):
        mine = np.arange(num_envs) == env
        for i in ring:
            one = episodes.take([i])
            obs = one.columns["obs.state"]
            other.begin({"state": np.repeat(obs[:1], num_envs, 0)}, mine)
            for t in range(one.num_transitions):
                row = {
                    name: np.repeat(c[t : t + 1], num_envs, 0) for name, c in one.columns.items()
                }
                other.add(
                    row["action"],
                    row["reward"],
                    row["terminated"],
                    np.full(num_envs, t == one.num_transitions - 1),
                    {"state": np.repeat(obs[t + 1 : t + 2], num_envs, 0)},
                    mine,
                )
    torch = pytest.importorskip("torch")
    for context in (1, 4):
        batches = [
            each.sample(64, context, generator=torch.Generator().manual_seed(0))
            for each in (replay, other)
        ]
        for name in ("action", "reward", "terminated", "valid"):
            assert torch.equal(getattr(batches[0], name), getattr(batches[1], name)), name
        assert torch.equal(batches[0].window["state"], batches[1].window["state"])
    # It goes on as one that was collected.
    replay.begin({"state": np.zeros((num_envs, 2))})
    ones = np.ones(num_envs)
    replay.add(ones[:, None], ones, 0 * ones, 0 * ones, {"state": np.ones((num_envs, 2))})
    assert replay.num_transitions() >= 14 if spare else replay.num_transitions() > 0


def test_episodes_whose_beginning_is_lost_are_left_out():
    episodes = numbered(6, 4, 3)
    replay = ReplayBuffer(SPEC, 12)
    for i in range(3):
        one = episodes.take([i])
        obs = one.columns["obs.state"]
        replay.begin({"state": obs[:1]})
        for t in range(one.num_transitions):
            c = one.columns
            replay.add(
                c["action"][t : t + 1],
                c["reward"][t : t + 1],
                c["terminated"][t : t + 1],
                np.array([i < 2 and t == one.num_transitions - 1]),
                {"state": obs[t + 1 : t + 2]},
            )
    found = read_replay(replay.state_dict())
    assert found.lengths.tolist() == [4, 3]  # the first lost its beginning, the last goes on
    assert found.returns.tolist() == [8, 9]
    expected = episodes.take([1, 2]).columns["obs.state"]
    np.testing.assert_array_equal(found.columns["obs.state"], expected)
    replay.begin({"state": np.zeros((1, 2))})  # an episode without a step is none
    assert read_replay(replay.state_dict()).lengths.tolist()[-1] == 3
