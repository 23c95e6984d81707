"""A convolutional encoder: one image becomes one small vector."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slipstream.errors import SlipstreamError
from slipstream.networks.linear import Linear
from slipstream.settings import Count, NotNegative, Settings, Widths


@dataclass(frozen=True)
class CNNConfig(Settings, section="networks.cnn"):
    """The encoder of image observations.

    The defaults take a 64 x 64 image in a fifth of the time of the encoders of DrQ-v2 and of the
    ManiSkill baselines on a CPU, because the first layer's stride leaves little to do for the rest.
    """

    channels: Widths = (32, 64, 64)
    """Channels of each layer."""
    kernels: Widths = (4, 3, 3)
    """Kernel size of each layer."""
    strides: Widths = (4, 2, 2)
    """Stride of each layer."""
    embed_size: Count = 64
    """Width of an image's embedding."""
    segment: Count = 8
    """Consecutive steps that are drawn together where images are encoded for learning, so that each
    image is encoded once for all of them."""
    shift: NotNegative = 4
    """Pixels by which images are shifted at random, each way, where policy and critics learn from
    them (DrQ); 0 for none. Cloning has its own, cloning.shift."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for sizes that make no encoder."""
        super().__post_init__()
        if len({len(self.channels), len(self.kernels), len(self.strides)}) != 1:
            raise SlipstreamError(
                f"networks.cnn.channels {self.channels}, kernels {self.kernels} and strides "
                f"{self.strides} differ in length; give one of each for every layer"
            )


class CNN(nn.Module):
    """Images (..., H, W, C) uint8 -> embeddings (..., embed_size), zero mean and unit variance.

    The last LayerNorm keeps embeddings in the range of other inputs (as in DrQ-v2, Yarats et al.
    2021, arXiv 2107.09645, without its tanh).
    """

    def __init__(self, config: CNNConfig, shape: Sequence[int]) -> None:
        super().__init__()
        height, width, channels = shape
        layers: list[nn.Conv2d] = []
        for i, (out, kernel, stride) in enumerate(
            zip(config.channels, config.kernels, config.strides, strict=True)
        ):
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
            if height < 1 or width < 1:
                raise SlipstreamError(
                    f"an image of {tuple(shape)} is too small for layer {i + 1} of the encoder "
                    f"(cnn.kernels {config.kernels}, cnn.strides {config.strides}); use larger "
                    "images or smaller kernels"
                )
            layers.append(nn.Conv2d(channels, out, kernel, stride))
            channels = out
        self.layers = nn.ModuleList(layers)
        self.output = Linear(channels * height * width, config.embed_size)
        self.norm = nn.LayerNorm(config.embed_size)

    def forward(self, images: Tensor) -> Tensor:
        """Images (..., H, W, C) uint8 -> (..., embed_size)."""
        # Permuted, not copied: the memory is then in torch's channels-last order, which is faster.
        x = images.reshape(-1, *images.shape[-3:]).permute(0, 3, 1, 2)
        x = x.to(self.norm.weight.dtype).mul_(2 / 255).sub_(1)
        for layer in self.layers:
            x = torch.relu_(layer(x))
        x = self.norm(self.output(x.flatten(1)))
        return x.view(*images.shape[:-3], -1)
