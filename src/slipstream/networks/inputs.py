"""From observations to one vector a frame: the part of a network that knows observation keys."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from slipstream.batch import Obs
from slipstream.errors import SlipstreamError
from slipstream.spec import ArraySpec


class Normalizer(nn.Module):
    """Running mean and variance of one vector observation, kept as buffers beside the weights.

    One normalizer for each key is shared by every network of a run that reads it: actors, critics
    and their targets see the same numbers, and a saved policy carries those of its own keys. Chan
    et al.'s parallel update.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int, clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take x (N, size) into the statistics."""
        n = x.shape[0]
        total = self.count + n
        delta = x.mean(0) - self.mean
        old = self.var * self.count
        spread = old + x.var(0, unbiased=False) * n + delta.square() * self.count * n / total
        self.mean += delta * n / total
        self.var.copy_(spread / total)
        self.count += n

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size), zero mean and unit variance, clipped."""
        return ((x - self.mean) * (self.var + 1e-8).rsqrt()).clamp(-self.clip, self.clip)


class StateInput(nn.Module):
    """Vector observations of the named keys, side by side: key -> (..., *) becomes (..., size)."""

    def __init__(
        self,
        obs_spec: Mapping[str, ArraySpec],
        keys: Sequence[str],
        normalizers: Mapping[str, Normalizer],
    ) -> None:
        super().__init__()
        for key in keys:
            if key not in obs_spec or len(obs_spec[key].shape) != 1:
                known = {name: spec.shape for name, spec in obs_spec.items()}
                raise SlipstreamError(
                    f"this network reads vector observations, but '{key}' is not one of {known}; "
                    "choose keys that are vectors"
                )
        self.keys = tuple(keys)
        self.sizes = [obs_spec[key].shape[0] for key in keys]
        self.size = sum(self.sizes)
        chosen = (
            {key: normalizers[key] for key in keys if key in normalizers} if normalizers else {}
        )
        self.normalizers = nn.ModuleDict(chosen)

    def frames(self, obs: Obs) -> Tensor:
        """What a memory keeps of each observation: key -> (..., *) becomes (..., size), raw."""
        if len(self.keys) == 1:
            return obs[self.keys[0]]
        return torch.cat([obs[key] for key in self.keys], -1)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (..., size), normalized if the run normalizes.

        Kept apart from `frames` so that a memory of raw frames stays right while the statistics
        move.
        """
        if not self.normalizers:
            return frames
        parts = [
            self.normalizers[key](part) if key in self.normalizers else part
            for key, part in zip(self.keys, frames.split(self.sizes, -1), strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
