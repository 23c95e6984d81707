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

IntArray = NDArray[np.signedinteger[Any]]


def num_cut(
    table: NDArray[np.int32],
    step: NDArray[np.int32],
    first: IntArray,
    count: IntArray,
    oldest_slot: IntArray,
    context_length: int,
) -> IntArray:
    """Count each environment's oldest transitions whose history is no longer in the ring.

    Only the episode that lost its first rows can hold such transitions, and the history of its
    n-th remaining transition reaches back n rows; so they are the first `context_length - 1`
    transitions at most, and all of that episode.

    Args:
        table: (E, L) flat row of transition k at [env, k % L].
        step: (E * L,) step in the episode of each row.
        first: (E,) oldest transition whose own row is in the ring.
        count: (E,) transitions ever stored.
        oldest_slot: (E,) slot of the oldest row in the ring.
        context_length: longest window C.

    Returns:
        (E,) how many transitions, from `first` on, have no whole window of C steps.
    """
    num_envs, rows_per_env = table.shape
    base = np.arange(num_envs) * rows_per_env
    length = min(context_length - 1, rows_per_env)
    alive = np.minimum(count - first, length)
    if length == 0 or not alive.any():
        return np.zeros_like(first)
    # In the order of the ring, the distance of a row from the oldest one is its age rank; a
    # transition lacks history when it lies nearer to the oldest row than its window reaches back.
    order = np.arange(length)
    slots = (first[:, None] + order) % rows_per_env
    rows = np.take_along_axis(table, slots, axis=1).astype(np.int64)
    rank = (rows - base[:, None] - oldest_slot[:, None]) % rows_per_env
    rows = np.where(order < alive[:, None], rows, 0)
    reach = np.minimum(step[rows], context_length - 1)
    return ((rank < reach) & (order < alive[:, None])).sum(axis=1)


def window_rows(row: Tensor, reach: Tensor, step: Tensor, rows_per_env: int) -> Tensor:
    """Flat rows of the windows that end with the transition at `row`.

    Args:
        row: (B,) flat row of each window's last transition.
        reach: (T + 1,) how many rows back each column lies: T - 1, ..., 1, 0, -1.
        step: (B,) step in the episode of `row`.
        rows_per_env: slots of a ring, L.

    Returns:
        (B, T + 1) flat rows; columns before the episode's first row repeat that row.
    """
    slot = row % rows_per_env
    base = row - slot
    back = torch.minimum(reach, step[:, None])
    return (slot[:, None] - back).remainder_(rows_per_env).add_(base[:, None])


def loss_mask(valid: Tensor, loss_steps: int, burn_in: int = 0) -> Tensor:
    """Which steps of a window count in the loss.

    Args:
        valid: (B, T + 1) bool.
        loss_steps: how many trailing steps may count.
        burn_in: how many of the window's first steps only warm up a memory.

    Returns:
        (B, T) float: 1.0 for valid steps among the last `loss_steps`, after the first `burn_in`.
    """
    mask = valid[:, :-1].float()
    silent = max(mask.shape[1] - loss_steps, burn_in)
    if silent > 0:
        mask[:, :silent] = 0.0
    return mask
