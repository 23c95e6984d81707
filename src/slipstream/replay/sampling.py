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
