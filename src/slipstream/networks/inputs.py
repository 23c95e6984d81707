"""From observations to one vector a frame: the part of a network that knows observation keys."""

import copy
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence
from urllib.parse import unquote

import torch
from torch import Tensor, nn

from slipstream.batch import Obs
from slipstream.errors import SlipstreamError
from slipstream.networks.cnn import CNN, CNNConfig
from slipstream.spec import ArraySpec, is_difference

OWN, TARGET, FROZEN = "embedding", "target_embedding", "frozen_embedding"
"""Whose embedding of an image: the networks' that learn, their targets', or that of a policy whose
encoder is frozen beside critics whose own learns on."""
CLIP = 10.0
"""Bound of normalized observations, in standard deviations."""
_TAKEN = frozenset(dir(nn.ModuleDict()))


class Normalizer(nn.Module):
    """Running mean and variance of one vector observation, kept as buffers beside the weights.

    One normalizer for each key is shared by every network of a run that reads it: actors, critics
    and their targets see the same numbers, and a saved policy carries those of its own keys. Chan
    et al.'s parallel update.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, size: int, clip: float = CLIP) -> None:
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


def clip_of(normalize_obs: bool) -> float | None:
    """The bound of a run's normalized observations; None where they are as they are."""
    return CLIP if normalize_obs else None


def normalizers_of(
    obs_spec: Mapping[str, ArraySpec], keys: Iterable[str], clip: float | None
) -> dict[str, Normalizer]:
    """The normalizers of what networks read, by key.

    Args:
        obs_spec: observation key -> its shape.
        keys: what is read.
        clip: bound of the normalized vectors; None to leave them as they are. Differences are
            normalized all the same: they may be many times smaller than the values beside them.
    """
    vectors = [key for key in keys if len(obs_spec[key].shape) == 1]
    return {
        key: Normalizer(obs_spec[key].size, CLIP if clip is None else clip)
        for key in vectors
        if clip is not None or is_difference(key)
    }


class ByKey(nn.ModuleDict):
    """Modules by observation key. Torch alone takes no dot in a key, and no name of its own."""

    def __getitem__(self, key: str) -> nn.Module:
        """The module of a key."""
        return super().__getitem__(module_name(key))

    def __setitem__(self, key: str, module: nn.Module) -> None:
        """Keep a module."""
        super().__setitem__(module_name(key), module)

    def __contains__(self, key: str) -> bool:
        """Whether there is one for a key."""
        return super().__contains__(module_name(key))

    def __iter__(self) -> Iterator[str]:
        """The keys."""
        return map(unquote, super().__iter__())

    def keys(self) -> KeysView[str]:
        """The keys."""
        return dict(self.items()).keys()

    def items(self) -> ItemsView[str, nn.Module]:
        """Keys and modules."""
        return dict(zip(self, self.values(), strict=True)).items()


def module_name(key: str) -> str:
    """An observation key as weights are named by it."""
    name = key.replace("%", "%25").replace(".", "%2E")
    if name in _TAKEN:
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name


class Inputs(nn.Module):
    """Observations of the named keys as one vector a frame: vectors as they are, images encoded.

    An image is encoded where `frames` meets it, once; what a memory keeps are embeddings. Where an
    observation holds an image's embedding already (`embedding_key`), that is taken.

    Attributes:
        borrowed: whether the encoders belong to another network, which alone moves them.
        embedded_as: which of an image's embeddings it takes (OWN, TARGET or FROZEN).
    """

    def __init__(
        self,
        obs_spec: Mapping[str, ArraySpec],
        keys: Sequence[str],
        normalizers: Mapping[str, Normalizer],
        cnn: CNNConfig,
    ) -> None:
        super().__init__()
        self.sizes: list[int] = []
        encoders: dict[str, CNN] = {}
        for key in keys:
            if key not in obs_spec:
                raise SlipstreamError(
                    f"this network reads '{key}', which is not one of the observations "
                    f"{', '.join(obs_spec)}; choose one of them"
                )
            shape = obs_spec[key].shape
            if len(shape) == 3:
                encoders[key] = CNN(cnn, shape)
            self.sizes.append(cnn.embed_size if key in encoders else shape[0])
        self.keys = tuple(keys)
        self.size = sum(self.sizes)
        self.normalizers = ByKey({key: normalizers[key] for key in keys if key in normalizers})
        self.encoders = ByKey(encoders)
        self.borrowed = False
        self.embedded_as = OWN

    def encodes_like(self, other: "Inputs") -> bool:
        """Whether the other encodes the same images, by encoders of the same shape."""

        def shapes(inputs: Inputs) -> dict[str, torch.Size]:
            return {name: value.shape for name, value in inputs.encoders.state_dict().items()}

        return shapes(self) == shapes(other)

    def borrow(self, lender: "Inputs") -> None:
        """Read images through the encoders of another network from now on.

        They come out of them detached: what learns here moves them no more.

        Raises:
            ValueError: the other network reads other images, or by encoders of another shape.
        """
        if not self.encodes_like(lender):
            raise ValueError(f"{lender.encoders} cannot stand for {self.encoders}")
        self.encoders = lender.encoders
        self.embedded_as = lender.embedded_as
        self.borrowed = True

    def part(self) -> None:
        """End borrowing: the encoders stay as they are now, whatever becomes of the lender's."""
        self.encoders = copy.deepcopy(self.encoders)
        self.embedded_as = OWN
        self.borrowed = False

    def frames(self, obs: Obs) -> Tensor:
        """What a memory keeps of each observation: key -> (..., *) becomes (..., size), raw."""
        parts = [self._part(key, obs) for key in self.keys]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _part(self, key: str, obs: Obs) -> Tensor:
        if key not in self.encoders:
            return obs[key]
        embedded = obs.get(embedding_key(key, self.embedded_as))
        if embedded is None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.borrowed):
                return self.encoders[key](obs[key])
        return embedded.detach() if self.borrowed else embedded

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


def embedding_key(key: str, of: str = OWN) -> str:
    """The observation key of an image's embedding, by the encoder itself or by its target copy."""
    return f"{key}.{of}"
