"""The replay: one row per observation, windows of any length gathered by index arithmetic."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slipstream.batch import Batch
from slipstream.errors import SlipstreamError
from slipstream.replay.placement import Placement, Where
from slipstream.replay.rings import Rings
from slipstream.replay.sampling import Index, even_weights, loss_mask, window_rows
from slipstream.replay.storage import (
    Array,
    RowStorage,
    check_column,
    row_bytes,
    to_host,
    to_tensor,
)
from slipstream.replay.transitions import Transitions
from slipstream.spec import EnvSpec

Derive = Callable[["ReplayBuffer", Tensor], Mapping[str, Tensor]]
APPENDED_AT_ONCE = 256


class ReplayBuffer:
    """One row per observation, in one ring of rows per environment.

    The newest row of an environment waits for its action; `add` completes it and writes the next
    observation into the next slot. When an episode ends that slot is its final row, which never
    gets an action, and `begin` writes the next episode behind it. So no observation is held
    twice, and the observation after the last step is the true one.

    Truncation is not stored: nothing but the terminal flag may stop bootstrapping, and where an
    episode ends shows in the rows' steps.

    Args:
        spec: shapes and dtypes of observations and actions.
        capacity: rows, summed over environments (each holds `capacity // num_envs`).
        num_envs: environments that are stored side by side.
        device: where batches are made.
        placement: where rows lie. On a device that is not the CPU, 8 bytes of bookkeeping per row
            are also held in the host's memory.

    Raises:
        SlipstreamError: a size that cannot hold one transition per environment, or more bytes
            than there are (said before anything is allocated).
    """

    def __init__(
        self,
        spec: EnvSpec,
        capacity: int,
        num_envs: int = 1,
        device: torch.device | str = "cpu",
        placement: Placement | None = None,
    ) -> None:
        self.spec = spec
        self.capacity = capacity
        self.num_envs = num_envs
        self.device = torch.device(device)
        placement = placement or Placement()
        self.num_bytes = self.bytes_required(spec, capacity, num_envs)
        self.rows_per_env = capacity // num_envs
        self._rows = RowStorage(spec, self.rows_per_env * num_envs, self.device, placement)
        self._rings = Rings(num_envs, self.rows_per_env)
        self._transitions = Transitions(self._rows, self._rings)
        self._pending = np.zeros(num_envs, np.bool_)  # the newest row waits for its action
        self._reach: dict[int, Index] = {}

    @staticmethod
    def bytes_required(spec: EnvSpec, capacity: int, num_envs: int = 1) -> int:
        """Bytes that a buffer takes where its rows lie.

        Raises:
            SlipstreamError: a size that cannot hold one transition per environment.
        """
        if num_envs < 1:
            raise SlipstreamError(f"num_envs is {num_envs}: use at least 1")
        if capacity < 2 * num_envs:
            raise SlipstreamError(
                f"replay_capacity is {capacity} for {num_envs} environment(s): "
                f"use at least {2 * num_envs}, one step and its successor for each"
            )
        if capacity >= 2**31:
            raise SlipstreamError(f"replay_capacity is {capacity}: use less than {2**31}")
        return capacity // num_envs * num_envs * row_bytes(spec)

    def __len__(self) -> int:
        """Rows stored."""
        return int(self.num_stored.sum())

    @property
    def is_empty(self) -> bool:
        """Whether nothing was stored yet."""
        return len(self) == 0

    @property
    def is_full(self) -> bool:
        """Whether every further row takes the place of an old one."""
        return len(self) == self.rows_per_env * self.num_envs

    def begin(self, obs: Mapping[str, Array], started: NDArray[np.bool_] | None = None) -> None:
        """Store the first observation of a new episode.

        An episode that was not finished ends here as a truncated one: its newest row becomes its
        final row. If it had no transition yet its only row is replaced.

        Args:
            obs: key -> (E, *).
            started: (E,) bool, the environments that begin an episode; None for all.
        """
        if started is None:
            started = np.ones(self.num_envs, np.bool_)
        replaced = self._pending & (self._rows.step[self._rings.newest] == 0)
        self._advance(started & ~replaced)
        envs = np.flatnonzero(started)
        rows = self._rings.newest[envs]
        for key in self.spec.obs:
            self._rows.write(f"obs.{key}", rows, obs[key], envs)
        self._rows.write_step(rows, np.zeros(len(envs), np.int32))
        self._pending[envs] = True

    def add(
        self,
        action: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        next_obs: Mapping[str, Array],
        acted: NDArray[np.bool_] | None = None,
    ) -> None:
        """Store one step of each environment.

        Args:
            action: (E, A) in [-1, 1].
            reward: (E,).
            terminated: (E,) bool, the episode ended in a terminal state.
            truncated: (E,) bool, the episode was cut off.
            next_obs: key -> (E, *), for an episode that ended its true last observation.
            acted: (E,) bool, the environments that made a step; None for all.

        Raises:
            SlipstreamError: an environment acted before `begin` gave its first observation.
        """
        envs = slice(None) if acted is None or np.all(acted) else np.flatnonzero(acted)
        if not self._pending[envs].all():
            idle = np.arange(self.num_envs)[envs][~self._pending[envs]].tolist()
            raise SlipstreamError(f"environment(s) {idle} acted without an episode: call begin")
        rows = self._rings.newest[envs]
        self._rows.write("action", rows, action, envs)
        self._rows.write("reward", rows, reward, envs)
        self._rows.write("terminated", rows, terminated, envs)
        self._transitions.add(envs, rows)
        self._advance(envs)
        next_rows = self._rings.newest[envs]
        for key in self.spec.obs:
            self._rows.write(f"obs.{key}", next_rows, next_obs[key], envs)
        self._rows.write_step(next_rows, self._rows.step[rows] + 1)
        self._pending[envs] = ~(_flags(terminated) | _flags(truncated))[envs]

    def num_transitions(self, context_length: int = 1) -> int:
        """How many transitions can be drawn with windows of `context_length` steps.

        A transition counts when its history of `context_length - 1` steps, or the whole episode so
        far if that is shorter, is still stored.
        """
        _check_at_least(1, context_length=context_length)
        return self._transitions.number(context_length)

    def sample(
        self,
        batch_size: int,
        context_length: int = 1,
        loss_steps: int = 1,
        generator: torch.Generator | None = None,
        keys: Collection[str] | None = None,
    ) -> Batch:
        """Draw windows so that every transition counts the same in the expected loss.

        With one loss step they are drawn uniformly over the transitions that they end with. With
        more, a transition is drawn and its place among the loss steps, and the window is moved so
        that these lie within the episode as far as it is stored; `Batch.mask` makes up for what is
        then drawn more often (see `even_weights`). An episode that still runs counts as one that
        ends with its newest transition. Only where a ring has overwritten an episode's beginning
        do the first of what is left, fewer than two times `loss_steps`, count less.

        Args:
            batch_size: windows, B.
            context_length: steps in a window, T.
            loss_steps: how many trailing steps count in the loss; those before them only warm up
                a memory.
            generator: source of randomness where the rows lie (the CPU for a file); None for
                torch's global one.
            keys: observations to gather; None for all.

        Returns:
            A batch on the buffer's device; padded rows repeat the episode's first row.

        Raises:
            SlipstreamError: a context longer than the replay, nothing to draw, or sizes that
                contradict each other.
        """
        _check_at_least(1, batch_size=batch_size, context_length=context_length)
        if context_length + 1 > self.rows_per_env:
            raise SlipstreamError(
                f"context_length {context_length} is longer than the replay, which holds "
                f"{self.rows_per_env} rows an environment: use a replay_capacity of at least "
                f"{(context_length + 1) * self.num_envs}"
            )
        if not 1 <= loss_steps <= context_length:
            raise SlipstreamError(f"loss_steps is {loss_steps}: use 1 to {context_length}")
        newest: Index = None
        if loss_steps == 1:
            last = self._transitions.draw(batch_size, context_length, generator)
        else:
            last, newest = self._transitions.draw_ends(
                batch_size, context_length, loss_steps, generator
            )
        reach = self._reach.get(context_length)
        if reach is None:
            reach = self._rows.index(np.arange(context_length - 1, -2, -1, dtype=np.int32))
            self._reach[context_length] = reach
        step = self._rows.take("step", last)
        windows = window_rows(last, reach, step, self.rows_per_env)
        steps = windows[:, :-1]
        valid = self._tensor(reach <= step[:, None])
        mask = loss_mask(valid, loss_steps)
        if loss_steps > 1:
            begins, ends = self._tensor(step < loss_steps), self._tensor(newest)
            mask[:, -loss_steps:] = even_weights(mask[:, -loss_steps:], begins, ends)
        gather = partial(self._rows.gather, device=self.device)
        return Batch(
            window={
                key: gather(f"obs.{key}", windows)
                for key in (self.spec.obs if keys is None else keys)
            },
            action=gather("action", steps),
            reward=gather("reward", steps),
            terminated=gather("terminated", steps),
            valid=valid,
            mask=mask,
            loss_steps=loss_steps,
        )

    def append(
        self,
        source: "ReplayBuffer",
        newest: NDArray[np.int64],
        skip: NDArray[np.int64] | None = None,
        derive: Derive | None = None,
    ) -> None:
        """Write the newest rows of another buffer behind those that are here.

        Where this buffer's newest row waits for its action, the first of them takes its place: the
        same row, completed meanwhile.

        Args:
            source: of as many environments.
            newest: (E,) how many of its newest rows, counted back from its head.
            skip: (E,) how many of those to leave out at the newest end; None for none.
            derive: makes the observations that the source does not hold, from a buffer and flat
                rows (R,) of it: key -> (R, *). Called with a few hundred rows at a time.
        """
        left_out = np.zeros_like(newest) if skip is None else skip
        made = [key for key in self.spec.obs if key not in source.spec.obs]
        for env in np.flatnonzero(newest > left_out).tolist():
            stop = int(source.num_written[env] - left_out[env])
            first = int(source.num_written[env] - newest[env])
            own_first = int(self._rings.head[env]) + (not self._pending[env])
            for start in range(first, stop, APPENDED_AT_ONCE):
                numbers = np.arange(start, min(start + APPENDED_AT_ONCE, stop))
                rows = source._flat(env, numbers)
                values = dict(derive(source, rows)) if made and derive is not None else {}
                own = self._flat(env, numbers - first + own_first)
                for name, column in self._columns().items():
                    key = name.removeprefix("obs.")
                    value = values[key] if key in made else source._rows.tensors[name][rows]
                    column[own] = value.to(column.device)
            self._rings.head[env] = own_first + stop - first - 1
            self._pending[env] = source._pending[env] and not left_out[env]
        self._rows.read_step()
        self._transitions.find()

    def newest_that_fit(self, source: "ReplayBuffer", keep: int | None = None) -> NDArray[np.int64]:
        """(E,) how many of another buffer's newest rows to take along into this empty one.

        Args:
            source: of as many environments.
            keep: rows wanted, spread evenly over environments; None for as many as fit. The newest
                row of each always comes along, so that its episode goes on.

        Raises:
            SlipstreamError: a negative `keep`.
        """
        if keep is not None:
            _check_at_least(0, keep=keep)
        share = self.rows_per_env if keep is None else keep // self.num_envs
        return np.minimum(source.num_stored, min(max(share, 1), self.rows_per_env))

    @property
    def where(self) -> Where:
        """Where the rows lie."""
        return self._rows.where

    @property
    def num_written(self) -> NDArray[np.int64]:
        """(E,) rows ever written of each environment, those that were overwritten included."""
        return self._rings.num_written

    @property
    def num_stored(self) -> NDArray[np.int64]:
        """(E,) rows of each environment that are here."""
        return self._rings.num_stored

    @property
    def pending(self) -> NDArray[np.bool_]:
        """(E,) whether an environment's newest row waits for its action."""
        return self._pending.copy()

    def observations(self, key: str, rows: Tensor) -> Tensor:
        """An observation at flat rows (R,) -> (R, *), where the rows lie."""
        return self._rows.tensors[f"obs.{key}"][rows]

    def state_dict(self) -> dict[str, Any]:
        """Everything that sampling and storing depend on.

        Rows are views of the buffer's memory where possible: save them before the next `add`.
        """
        used = int(self.num_stored.max())
        return {
            "capacity": self.capacity,
            "num_envs": self.num_envs,
            "head": to_tensor(self._rings.head.copy()),
            "pending": to_tensor(self._pending.copy()),
            "rows": {name: self._by_env(rows)[:, :used] for name, rows in self._columns().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state, so that sampling with the same generator gives the same batches.

        Raises:
            SlipstreamError: the state is of another capacity, number of environments or shape.
        """
        for name in ("capacity", "num_envs"):
            if state[name] != getattr(self, name):
                raise SlipstreamError(
                    f"the stored replay has {name} {state[name]}, this one "
                    f"{getattr(self, name)}: use the stored value"
                )
        stored: Mapping[str, Tensor] = state["rows"]
        for name, rows in self._columns().items():
            check_column(name, stored, rows)
        for name, rows in self._columns().items():
            self._by_env(rows)[:, : stored[name].shape[1]] = stored[name].to(rows.device)
        self._rings.head[:] = state["head"].numpy()
        self._pending[:] = state["pending"].numpy()
        self._rows.read_step()
        self._transitions.find()

    def _columns(self) -> dict[str, Tensor]:
        """What rows hold, without the table, which follows from it."""
        return {name: rows for name, rows in self._rows.tensors.items() if name != "table"}

    def _tensor(self, index: Index) -> Tensor:
        """What index arithmetic gave, as a tensor on the buffer's device."""
        return to_tensor(index).to(self.device) if self._rows.on_host else index

    def _advance(self, envs: Any) -> None:
        """Make room for one more row of each chosen environment; its oldest may go."""
        self._rings.head[envs] += 1
        self._transitions.drop_overwritten()

    def _flat(self, env: int, numbers: NDArray[np.int64]) -> Tensor:
        """(R,) flat rows of an environment's rows by number, the first ever written being 0."""
        return self._rows.to_device(self._rings.flat(env, numbers))

    def _by_env(self, rows: Tensor) -> Tensor:
        return rows.view(self.num_envs, self.rows_per_env, *rows.shape[1:])


def _flags(value: Array) -> NDArray[np.bool_]:
    return to_host(value).astype(np.bool_)


def _check_at_least(least: int, **sizes: int) -> None:
    for name, value in sizes.items():
        if value < least:
            raise SlipstreamError(f"{name} is {value}: use at least {least}")
