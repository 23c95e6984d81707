"""Random shifts of images, the augmentation that learning from pixels stands on."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slipstream.batch import Batch


def shifted(batch: Batch, pad: int, generator: torch.Generator | None = None) -> Batch:
    """The batch with its images moved by up to `pad` pixels, up or down and left or right.

    As in DrQ (Yarats et al. 2021, arXiv 2004.13649 and 2107.09645): each image is padded by
    repeating its edge and cropped at random. Whole pixels are copied. DrQ-v2 interpolates between
    them, but at offsets that are whole pixels too: the result is the same up to rounding (0.002 of
    256 grey levels), for ten times the time on a CPU.

    A window has one shift, for all its steps and for all its cameras. So what moves in a stack of
    frames is what moved in the world, and `obs` and `next_obs`, which share their frames, are
    shifted alike; DrQ draws a shift for each of the two, and encodes nearly every frame twice.

    Args:
        batch: windows; observations that are no images stay as they are.
        pad: 0 leaves everything as it is.
        generator: source of randomness on the CPU; None for torch's global one.
    """
    images = {key: value for key, value in batch.window.items() if value.dim() == 5}
    if not pad or not images:
        return batch
    offsets = torch.randint(2 * pad + 1, (len(batch.valid), 2), generator=generator).numpy()
    moved = {key: _crop(_padded(value, pad), offsets, pad) for key, value in images.items()}
    return replace(batch, window={**batch.window, **moved})


def _padded(images: Tensor, pad: int) -> Tensor:
    """(B, T, H, W, C) -> (B, T, H + 2 pad, W + 2 pad, C), the edges repeated."""
    for dim in (2, 3):
        shape = list(images.shape)
        shape[dim] = pad
        first = images.narrow(dim, 0, 1).expand(shape)
        last = images.narrow(dim, images.shape[dim] - 1, 1).expand(shape)
        images = torch.cat([first, images, last], dim)
    return images


def _crop(images: Tensor, offsets: NDArray[np.int64], pad: int) -> Tensor:
    """Images padded by `pad`, and for each window (top, left) of the crop, (B, 2)."""
    height, width = images.shape[2] - 2 * pad, images.shape[3] - 2 * pad
    return torch.stack(
        [
            window[:, top : top + height, left : left + width]
            for window, (top, left) in zip(images, offsets, strict=True)
        ]
    )
