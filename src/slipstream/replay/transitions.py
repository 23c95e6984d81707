"""Which rows are transitions, and which of those a window can be drawn for."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slipstream.errors import SlipstreamError
from slipstream.replay.rings import Rings
from slipstream.replay.sampling import Index, first_whole, within_episode
from slipstream.replay.storage import RowStorage


class Transitions:
    """A table of the rows that are transitions, in the order in which they were stored.

    Transition k of an environment is the k-th that was stored of it. One is drawn only while its
    whole history, of as many steps as a window has, is still in the ring.

    Args:
        rows: the storage, which holds the table beside the rows.
        rings: where rows lie; moved by who writes them.
    """

    def __init__(self, rows: RowStorage, rings: Rings) -> None:
        self._rows, self._rings = rows, rings
        self._count = np.zeros(rings.num_envs, np.int64)  # ever stored
        self._first = np.zeros(rings.num_envs, np.int64)  # the oldest whose row is still there
        self._whole: dict[int, NDArray[np.int64]] = {}  # context -> the oldest with its history
        self._eligible: dict[int, tuple[int, Index, Index]] = {}

    def add(self, envs: Any, rows: NDArray[np.int64]) -> None:
        """Note that the newest rows of the chosen environments have become transitions."""
        entries = self._entries(self._count)[envs]
        self._rows.write_table(entries, rows)
        self._count[envs] += 1
        self._eligible.clear()

    def drop_overwritten(self) -> None:
        """Forget the oldest transitions whose rows the rings' heads have just come upon."""
        oldest = self._rows.table[self._entries(self._first)]
        self._first += (oldest == self._rings.newest) & (self._first < self._count)
        self._eligible.clear()

    def find(self) -> None:
        """Work out anew, from the rows' steps, which of them are transitions."""
        for env in range(self._rings.num_envs):
            rows = self._rings.stored(env)
            step = self._rows.step[rows]
            transitions = rows[:-1][step[1:] == step[:-1] + 1]
            entries = self._rings.base[env] + np.arange(len(transitions))
            self._rows.write_table(entries, transitions)
            self._count[env] = len(transitions)
        self._first[:] = 0
        self._whole.clear()
        self._eligible.clear()

    def number(self, context_length: int) -> int:
        """How many can be drawn with windows of `context_length` steps."""
        return self._eligibility(context_length)[0]

    def draw(
        self, batch_size: int, context_length: int, generator: torch.Generator | None
    ) -> Index:
        """(B,) flat rows of uniformly drawn transitions.

        Raises:
            SlipstreamError: there is nothing to draw.
        """
        draw = self._draw_below(self._total(context_length), batch_size, generator)
        return self._rows.take("table", self._entry(draw, *self._place(draw, context_length)[:2]))

    def draw_ends(
        self,
        batch_size: int,
        context_length: int,
        loss_steps: int,
        generator: torch.Generator | None,
    ) -> tuple[Index, Index]:
        """Ends of windows whose `loss_steps` last steps are weighed by `even_weights`.

        A transition is drawn uniformly, and with it which place it has among those steps. Where
        they would reach beyond its episode, at either end, the window is moved back into it.

        Returns:
            (B,) flat rows, and (B,) bool, whether they are the newest transition of their episode.

        Raises:
            SlipstreamError: there is nothing to draw.
        """
        total = self._total(context_length)
        number = self._draw_below(total * loss_steps, batch_size, generator)
        draw, behind = number // loss_steps, number % loss_steps
        base, offset, stop = self._place(draw, context_length)
        ahead = self._rows.index(np.arange(loss_steps + 1)[:, None])
        step = self._rows.take(
            "step", self._rows.take("table", self._entry(draw + ahead, base, offset))
        )
        # Any later episode begins at step 0, so the steps of its transitions are lower than these.
        same_episode = (draw + ahead < stop) & (step == step[0] + ahead)
        left = same_episode.sum(0) - 1  # transitions behind the drawn one, up to loss_steps
        moved = within_episode(behind, step[0], left, loss_steps)
        return self._rows.take("table", self._entry(draw + moved, base, offset)), moved == left

    def _total(self, context_length: int) -> int:
        """How many can be drawn.

        Raises:
            SlipstreamError: none.
        """
        total = self.number(context_length)
        if total == 0:
            raise SlipstreamError(
                f"no transition with a whole window of context_length {context_length} among "
                f"{int(self._rings.num_stored.sum())} stored rows: collect more steps before "
                "learning"
            )
        return total

    def _draw_below(self, total: int, batch_size: int, generator: torch.Generator | None) -> Index:
        drawn = torch.randint(total, (batch_size,), generator=generator, device=self._rows.device)
        return drawn.numpy() if self._rows.on_host else drawn

    def _place(self, draw: Index, context_length: int) -> tuple[Index, Index, Index]:
        """Each draw's ring by its first slot, and the offset and end of its environment.

        Each (B,), or one number for all where there is one environment.
        """
        total, offset, ends = self._eligibility(context_length)
        if self._rings.num_envs == 1:
            return 0, offset, total
        search: Any = np.searchsorted if self._rows.on_host else torch.searchsorted
        env = search(ends, draw, side="right")
        return env * self._rings.rows_per_env, offset[env], ends[env]

    def _entry(self, draw: Index, base: Index, offset: Index) -> Index:
        """Where the table has what was drawn."""
        return (draw + offset) % self._rings.rows_per_env + base

    def _eligibility(self, context_length: int) -> tuple[int, Index, Index]:
        """How many can be drawn, and for each environment its offset and end.

        The n-th of all is transition n + offset of the first environment whose end is beyond n.
        """
        cached = self._eligible.get(context_length)
        if cached is not None:
            return cached
        start = self._whole[context_length] = first_whole(
            np.maximum(self._whole.get(context_length, 0), self._first),
            self._count,
            self._rows.table,
            self._rows.step,
            self._rings.oldest,
            self._rings.base,
            self._rings.rows_per_env,
            context_length,
        )
        number = self._count - start
        if self._rings.num_envs == 1:
            cached = (int(number[0]), int(start[0]), None)
        else:
            ends = np.cumsum(number)
            offset = start - (ends - number)
            cached = (int(ends[-1]), self._rows.index(offset), self._rows.index(ends))
        self._eligible[context_length] = cached
        return cached

    def _entries(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """(E,) where the table has the transition of each environment with this number."""
        return self._rings.base + number % self._rings.rows_per_env
