"""Random shifts: whole pixels, one for each window, nothing else touched."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slipstream.batch import Batch
from slipstream.stages.shift import shifted
from tests.algorithms.batches import random_batch

SIZE, PAD = 11, 3


def image_batch(size: int = 40, length: int = 2) -> Batch:
    batch = random_batch(size=size, length=length)
    generator = torch.Generator().manual_seed(1)
    shape = (size, length + 1, SIZE, SIZE)
    images = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)
    depth = torch.randint(0, 256, (*shape, 1), dtype=torch.uint8, generator=generator)
    return replace(batch, window={**batch.window, "rgb": images, "depth": depth})


def seeded(batch: Batch, seed: int, pad: int = PAD) -> Batch:
    return shifted(batch, pad, torch.Generator().manual_seed(seed))


def crops_of(images):
    """Every image (.., H, W, C) there can be of a window, by numpy: offset -> images."""
    padding = [(0, 0), (PAD, PAD), (PAD, PAD), (0, 0)]
    padded = np.pad(images.numpy(), padding, mode="edge")
    return {
        (top, left): padded[:, top : top + SIZE, left : left + SIZE]
        for top in range(2 * PAD + 1)
        for left in range(2 * PAD + 1)
    }


def test_each_window_is_cropped_once_from_its_padded_images():
    batch = image_batch()
    moved = seeded(batch, 0)
    offsets = set()
    for window, result, depth, depth_result in zip(
        batch.window["rgb"],
        moved.window["rgb"],
        batch.window["depth"],
        moved.window["depth"],
        strict=True,
    ):
        crops = crops_of(window)
        (found,) = [o for o, crop in crops.items() if np.array_equal(crop, result)]
        assert np.array_equal(crops_of(depth)[found], depth_result)  # cameras stay in register
        offsets.add(found)
    assert len(offsets) > 20 and {o[0] for o in offsets} == set(range(2 * PAD + 1))


def test_it_is_a_pure_function_of_batch_and_generator():
    batch = image_batch()
    before = {key: value.clone() for key, value in batch.window.items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = seeded(batch, 0), seeded(batch, 0), seeded(batch, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.window["rgb"], again.window["rgb"])
    assert not torch.equal(first.window["rgb"], other.window["rgb"])
    assert all(torch.equal(batch.window[key], value) for key, value in before.items())
    assert first.window["rgb"].dtype == torch.uint8
    assert first.window["state"] is batch.window["state"] and first.reward is batch.reward


def test_without_a_generator_torchs_own_is_used():
    batch = image_batch()
    torch.manual_seed(3)
    first = shifted(batch, PAD)
    second = shifted(batch, PAD)
    torch.manual_seed(3)
    assert torch.equal(shifted(batch, PAD).window["rgb"], first.window["rgb"])
    assert not torch.equal(second.window["rgb"], first.window["rgb"])


@pytest.mark.parametrize("batch", [random_batch(), image_batch()], ids=["vectors", "images"])
def test_nothing_to_shift_draws_nothing(batch):
    state = torch.get_rng_state()
    assert shifted(batch, 0) is batch
    if "rgb" not in batch.window:
        assert shifted(batch, PAD) is batch
    assert torch.equal(torch.get_rng_state(), state)


def test_grid_sampling_as_in_drq_v2_gives_the_same_images():
    """Its offsets are whole pixels, so that its interpolation only rounds."""
    images = image_batch(size=2, length=1).window["rgb"][:, 0].permute(0, 3, 1, 2).float()
    padded = torch.nn.functional.pad(images, (PAD,) * 4, mode="replicate")
    size = SIZE + 2 * PAD
    ticks = torch.linspace(-1 + 1 / size, 1 - 1 / size, size)[:SIZE]
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1)
    top, left = 5, 1
    grid = grid + torch.tensor([left, top]) * 2 / size
    sampled = torch.nn.functional.grid_sample(
        padded, grid.expand(2, -1, -1, -1), align_corners=False
    )
    cropped = padded[:, :, top : top + SIZE, left : left + SIZE]
    torch.testing.assert_close(sampled, cropped, rtol=0, atol=0.01)
