"""The causal transformer over a window of frames, computed only where its output is used."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from slipstream.errors import SlipstreamError
from slipstream.networks.attention import GATES, Attention, attention_mask
from slipstream.networks.linear import Linear
from slipstream.networks.memory import Carry, Prepare, empty_window, push_frame, windows_before
from slipstream.settings import Count, PartOfOne, Settings


@dataclass(frozen=True)
class TransformerConfig(Settings, section="networks.transformer"):
    """A pre-norm causal transformer over the last `context_length` observations."""

    context_length: Count = 3
    """Observations the policy sees, the present one included."""
    d_model: Count = 64
    """Width of the residual stream."""
    n_layers: Count = 1
    """Number of blocks."""
    n_heads: Count = 2
    """Attention heads; must divide d_model."""
    d_ff: Count = 128
    """Hidden width of each feed-forward layer."""
    dropout: PartOfOne = 0.0
    """Dropout on each block's output while training."""
    gate: Literal["residual", "gru"] = "residual"
    """How a block's output joins the stream: plain residual, or GTrXL's GRU gate."""
    position: Literal["learned", "rotary"] = "learned"
    """How a step knows its place: an embedding learnt for each place in the window, or queries and
    keys turned by it (RoPE), so that only distances matter."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for sizes that make no transformer."""
        super().__post_init__()
        if self.d_model % self.n_heads:
            raise SlipstreamError(
                f"networks.transformer.n_heads {self.n_heads} does not divide "
                f"networks.transformer.d_model {self.d_model}; choose a divisor"
            )
        if self.position == "rotary" and self.d_model // self.n_heads % 2:
            raise SlipstreamError(
                "networks.transformer.position is rotary, but a head of "
                f"{self.d_model // self.n_heads} components has no pairs to turn; choose d_model "
                "and n_heads so that it is even"
            )


class Block(nn.Module):
    """Pre-norm block (Xiong et al. 2020).

    x <- gate(x, attention(norm(x))), then the same with the feed-forward layer.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = Attention(d_model, config.n_heads, config.position == "rotary")
        self.attention_gate = GATES[config.gate](d_model)
        self.ff_norm = nn.LayerNorm(d_model)
        self.ff_in = Linear(d_model, config.d_ff)
        self.ff_out = Linear(config.d_ff, d_model)
        self.ff_gate = GATES[config.gate](d_model)
        self.dropout_rate = config.dropout

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """X (B, T, D), mask (B, 1, L, T) -> (B, L, D): the block at the last L steps alone."""
        y = self._dropout(self.attention(self.attention_norm(x), mask))
        x = self.attention_gate(x[:, x.shape[1] - mask.shape[2] :], y)
        y = self._dropout(self.ff_out(nn.functional.gelu(self.ff_in(self.ff_norm(x)))))
        return self.ff_gate(x, y)

    def _dropout(self, x: Tensor) -> Tensor:
        # Only where gradients flow: acting and target values are always without dropout.
        if self.dropout_rate == 0 or not (self.training and torch.is_grad_enabled()):
            return x
        return nn.functional.dropout(x, self.dropout_rate)


class TransformerBackbone(nn.Module):
    """Frames (B, T, K) -> features (B, last, D).

    Keys and values are needed of every step, but in the last block queries, feed-forward and
    norms only of the steps whose output is used: with one block and `last=1` that saves half the
    arithmetic at a context of 3 and two thirds at 10.

    Positions count from the window's right end, so a window cut short by an episode's start sees
    the same embeddings for the same distances in time.
    """

    def __init__(self, config: TransformerConfig, input_size: int) -> None:
        super().__init__()
        self.context_length = config.context_length
        self.loss_steps = 1
        self.input_size = input_size
        self.feature_size = config.d_model
        self.embed = Linear(input_size, config.d_model)
        self.position = None
        if config.position == "learned":
            start = 0.02 * torch.randn(config.context_length, config.d_model)
            self.position = nn.Parameter(start)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, frames: Tensor, valid: Tensor, last: int = 1) -> Tensor:
        """Frames (B, T, K), valid (B, T) bool -> (B, last, D)."""
        windows, valid = windows_before(frames, valid, self.context_length, last)
        return self._last_step(windows, valid).view(frames.shape[0], last, self.feature_size)

    def _last_step(self, frames: Tensor, valid: Tensor) -> Tensor:
        """Frames (B, T, K), valid (B, T), T <= context_length -> the last step's (B, 1, D)."""
        length = frames.shape[1]
        x = self.embed(frames)
        if self.position is not None:
            x = x + self.position[self.context_length - length :]
        for i, block in enumerate(self.blocks):
            queries = 1 if i == len(self.blocks) - 1 else length
            x = block(x, attention_mask(valid, queries))
        return self.norm(x)

    def memory_parameters(self) -> list[nn.Parameter]:
        """All of it."""
        return list(self.parameters())

    def initial_carry(self, num_envs: int) -> Carry:
        """An empty window: {"window": (N, C, K), "valid": (N, C)}."""
        return empty_window(num_envs, self.context_length, self.input_size, self.norm.weight)

    def step(self, raw: Tensor, carry: Carry, prepare: Prepare) -> tuple[Tensor, Carry]:
        """Slide the window by one raw frame (N, K): features (N, D) and the window.

        The window is recomputed at each step. Rolling a cache of keys and values instead is
        another function as soon as there are two layers: cached values would still know
        observations that have left the window.
        """
        carry = push_frame(raw, carry)
        return self._last_step(prepare(carry["window"]), carry["valid"])[:, 0], carry
