"""Whole episodes that were recorded before a run, as rows of a replay."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from slipstream.replay.buffer import ReplayBuffer
from slipstream.replay.storage import to_host, to_tensor
from slipstream.spec import ArraySpec, difference_key


@dataclass(frozen=True)
class Episodes:
    """Episodes one behind the other, a row for each observation and so one for the last of each.

    Attributes:
        columns: what a replay's rows hold, name -> (R, *): `obs.<key>`, `action` in [-1, 1],
            `reward`, `terminated` and `step`, which is 0 where an episode begins. Action and reward
            of an episode's last row mean nothing.
    """

    columns: Mapping[str, NDArray[Any]]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(N,) first row of each episode."""
        return np.flatnonzero(self.columns["step"] == 0)

    @property
    def num_rows(self) -> int:
        """Rows of all episodes."""
        return len(self.columns["step"])

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) transitions of each episode."""
        return np.diff(np.append(self.starts, self.num_rows)) - 1

    @property
    def num_transitions(self) -> int:
        """Transitions of all episodes."""
        return int(self.lengths.sum())

    @cached_property
    def returns(self) -> NDArray[np.float64]:
        """(N,) sum of each episode's rewards."""
        reward = self.columns["reward"].astype(np.float64)
        until = np.concatenate([[0.0], np.cumsum(reward)])
        return until[self.starts + self.lengths] - until[self.starts]

    def take(self, which: Iterable[int]) -> "Episodes":
        """Some of the episodes, in the given order."""
        nothing = np.zeros(0, np.int64)
        rows: list[NDArray[np.int64]] = [
            np.arange(self.starts[i], self.starts[i] + self.lengths[i] + 1) for i in which
        ]
        chosen = np.concatenate([nothing, *rows])
        return Episodes({name: column[chosen] for name, column in self.columns.items()})

    def best(self, share: float) -> "Episodes":
        """The share with the highest returns, one at least, in their order."""
        number = max(1, int(np.ceil(share * len(self.starts))))
        return self.take(np.sort(np.argsort(-self.returns, kind="stable")[:number]))

    def compared(self, obs_spec: Mapping[str, ArraySpec]) -> "Episodes":
        """The same with the differences that `obs_spec` names and the columns lack."""
        columns = dict(self.columns)
        for key in obs_spec:
            added = difference_key(key)
            if added in obs_spec and f"obs.{added}" not in columns:
                rows = columns[f"obs.{key}"]
                change = np.diff(rows, axis=0, prepend=rows[:1])
                change[self.starts] = 0
                columns[f"obs.{added}"] = change
        return Episodes(columns)

    def newest(self, num_rows: int) -> "Episodes":
        """The last ones, as many as fit into `num_rows` rows."""
        behind = np.cumsum((self.lengths + 1)[::-1])[::-1]
        return self.take(np.flatnonzero(behind <= num_rows))

    def rings(self, num_envs: int) -> list[list[int]]:
        """Which episodes go into each of a replay's rings, each to the emptiest one."""
        load = np.zeros(num_envs, np.int64)
        rings: list[list[int]] = [[] for _ in range(num_envs)]
        for i, length in enumerate(self.lengths):
            env = int(load.argmin())
            rings[env].append(i)
            load[env] += length + 1
        return rings

    def capacity(self, num_envs: int) -> int:
        """Rows of a replay for so many environments that holds all of them."""
        rows = self.lengths + 1
        return num_envs * max(int(rows[ring].sum()) for ring in self.rings(num_envs))


def read_replay(state: Mapping[str, Any]) -> Episodes:
    """The episodes in a replay's `state_dict` whose beginning is still there, ring by ring."""
    rows: Mapping[str, Tensor] = state["rows"]
    capacity = state["capacity"] // state["num_envs"]
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in rows}
    for env, head in enumerate(to_host(state["head"])):
        first = max(int(head) + 1 - capacity, 0)
        newest = np.arange(first, int(head) + 1, dtype=np.int64) % capacity
        begun = np.cumsum(to_host(rows["step"][env])[newest] == 0) > 0
        for name, column in rows.items():
            parts[name].append(to_host(column[env])[newest[begun]])
    found = Episodes({name: np.concatenate(part) for name, part in parts.items()})
    return found.take(np.flatnonzero(found.lengths > 0))


def fill(replay: ReplayBuffer, episodes: Episodes) -> None:
    """Put episodes into an empty replay, as if they had been collected.

    Args:
        replay: of at least `episodes.capacity` rows.
        episodes: whose columns hold the replay's; observations beyond them are left out.
    """
    state = replay.state_dict()
    rings = [episodes.take(ring) for ring in episodes.rings(replay.num_envs)]
    used = max(ring.num_rows for ring in rings)
    rows: dict[str, Tensor] = {}
    for name, like in state["rows"].items():
        column = episodes.columns[name]
        dtype = to_host(like).dtype
        stored = np.zeros((len(rings), used, *column.shape[1:]), dtype)
        for env, ring in enumerate(rings):
            stored[env, : ring.num_rows] = ring.columns[name]
        rows[name] = to_tensor(stored)
    head = to_tensor(np.array([ring.num_rows - 1 for ring in rings]))
    replay.load_state_dict({**state, "head": head, "rows": rows})
