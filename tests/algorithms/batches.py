"""Hand-made batches."""

import torch

from slipstream.batch import Batch
from tests.networks.policies import ACTION_DIM, OBS_DIM


def random_batch(seed: int = 0, size: int = 16, length: int = 3, loss_steps: int = 1) -> Batch:
    """Random windows, some of them padded, some ending in a terminal state."""
    generator = torch.Generator().manual_seed(seed)
    window = torch.randn(size, length + 1, OBS_DIM, generator=generator)
    padding = torch.randint(0, length, (size, 1), generator=generator)
    valid = torch.arange(length + 1) >= padding
    mask = valid[:, :-1].to(torch.get_default_dtype())
    mask[:, : length - loss_steps] = 0
    return Batch(
        window={"state": window},
        action=torch.rand(size, length, ACTION_DIM, generator=generator) * 2 - 1,
        reward=torch.randn(size, length, generator=generator),
        terminated=(torch.rand(size, length, generator=generator) < 0.3).to(
            torch.get_default_dtype()
        ),
        valid=valid,
        mask=mask,
        loss_steps=loss_steps,
    )
