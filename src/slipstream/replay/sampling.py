"""Pure index arithmetic: which rows make up a window, and which of them count.

Rows of one environment lie in a ring of `rows_per_env` slots; the flat index of a row is
`env * rows_per_env + slot`. An episode's rows follow each other in the ring, so a window is a range
of slots that is clamped at the episode's first row.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Indices are numpy arrays for a buffer on the CPU, where an operation costs half of torch's, and
# tensors elsewhere. The arithmetic is the same.
Index = Any


def first_whole(
    start: NDArray[np.int64],
    count: NDArray[np.int64],
    table: NDArray[np.int32],
    step: NDArray[np.int32],
    oldest: NDArray[np.int64],
    base: NDArray[np.int64],
    rows_per_env: int,
    context_length: int,
) -> NDArray[np.int64]:
    """Find each environment's oldest transition whose whole history is still in the ring.

    Overwriting can only take history away from an environment's oldest transitions, and once a
    transition is whole all later ones are. So the search goes on where the last one ended.

    Args:
        start: (E,) where to begin: no transition before it is whole.
        count: (E,) transitions ever stored.
        table: (E * L,) flat row of transition k at [env * L + k % L].
        step: (E * L,) step in the episode of each row.
        oldest: (E,) flat row of the oldest row in the ring.
        base: (E,) flat row of each ring's first slot.
        rows_per_env: slots of a ring, L.
        context_length: longest window, C; a history is C - 1 rows, or the episode so far.

    Returns:
        (E,) the transition, or `count` where there is none.
    """
    if context_length == 1:
        return start
    while True:
        rows = table[base + start % rows_per_env]
        age_rank = (rows - oldest) % rows_per_env
        short = age_rank < np.minimum(step[rows], context_length - 1)
        short &= start < count
        if not short.any():
            return start
        start = start + short


def window_rows(row: Index, reach: Index, step: Index, rows_per_env: int) -> Index:
    """Flat rows of the windows that end with the transition at `row`.

    Args:
        row: (B,) flat row of each window's last transition.
        reach: (T + 1,) how many rows back each column lies: T - 1, ..., 1, 0, -1.
        step: (B,) step in the episode of `row`.
        rows_per_env: slots of a ring, L.

    Returns:
        (B, T + 1) flat rows; columns before the episode's first row repeat that row.
    """
    minimum: Any = torch.minimum if isinstance(row, Tensor) else np.minimum
    slot = row % rows_per_env
    index = slot[:, None] - minimum(reach, step[:, None])
    index %= rows_per_env
    index += (row - slot)[:, None]
    return index


def num_windows(batch_size: int, loss_steps: int) -> int:
    """Windows that hold `batch_size` steps of which `loss_steps` in each count."""
    return -(-batch_size // loss_steps)


def within_episode(behind: Index, step: Index, left: Index, loss_steps: int) -> Index:
    """How far behind a transition a window ends whose `loss_steps` last steps are in its episode.

    Args:
        behind: (B,) how far behind the transition it would end.
        step: (B,) step in the episode of the transition.
        left: (B,) transitions of the episode behind it; any number above `behind` is as good.
        loss_steps: L.

    Returns:
        (B,) from 0 to `left`; in an episode of less than L steps the window ends with it.
    """
    chosen: Any = torch.where if isinstance(behind, Tensor) else np.where
    least = loss_steps - 1 - step
    moved = chosen(behind < least, least, behind)
    return chosen(moved > left, left, moved)


def loss_mask(valid: Tensor, loss_steps: int) -> Tensor:
    """Which steps of a window count in the loss.

    Args:
        valid: (B, T + 1) bool.
        loss_steps: how many trailing steps may count.

    Returns:
        (B, T) float: 1.0 for valid steps among the last `loss_steps`.
    """
    num_steps = valid.shape[1] - 1
    silent = num_steps - loss_steps
    mask = torch.zeros((len(valid), num_steps), device=valid.device)
    mask[:, silent:] = valid[:, silent:-1]
    return mask


def even_weights(counted: Tensor, begins: Tensor, ends: Tensor) -> Tensor:
    """What the steps of windows drawn by `Transitions.draw_ends` weigh, so that all weigh the same.

    A transition is drawn at each of its L places among a window's last steps, so that L windows
    hold it; those that would reach beyond the episode were moved back into it. So the first window
    of an episode stands for L, of which one holds the last of its steps and all hold the first, and
    the last window for L the other way round. And a window is as likely as it holds steps, which
    is made up for by weighing all windows the same.

    Args:
        counted: (B, L) 1.0 for steps that exist.
        begins: (B,) bool, nothing of the episode lies before these steps.
        ends: (B,) bool, nothing of it lies behind them.

    Returns:
        (B, L), L in sum for each window.
    """
    num_steps = counted.shape[1]
    rising = torch.arange(1, num_steps + 1, device=counted.device)
    weight = torch.where((ends & ~begins)[:, None], rising, 1)
    weight = torch.where((begins & ~ends)[:, None], rising.flip(0), weight) * counted
    return weight * (num_steps / weight.sum(1, keepdim=True))
