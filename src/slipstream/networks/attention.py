"""Causal self-attention over left-padded windows, and the gates around it."""

import torch
from torch import Tensor, nn

from slipstream.networks.linear import Linear


def attention_mask(valid: Tensor, last: int) -> Tensor:
    """Valid (B, T) bool -> (B, 1, last, T) bool: which keys each of the last queries may see.

    A step sees itself and the valid steps before it. Padded queries see themselves alone, so that
    no softmax is empty; a window's last step is never padding.
    """
    if last == 1:  # it sees all that is valid: nothing to compare
        return valid[:, None, None]
    length = valid.shape[1]
    query = torch.arange(length - last, length, device=valid.device)[:, None]
    key = torch.arange(length, device=valid.device)[None]
    return ((key <= query) & valid[:, None] | (key == query))[:, None]


def turn(x: Tensor, places: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): turn pairs of components by their place.

    Args:
        x: (B, H, T, K), K even; component i is paired with component i + K / 2.
        places: (T,) of each step in the window.
    """
    half = x.shape[-1] // 2
    frequency = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = places[:, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Attention(nn.Module):
    """Multi-head attention of the last queries on the whole window."""

    def __init__(self, d_model: int, n_heads: int, rotary: bool = False) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.rotary = rotary
        self.query = Linear(d_model, d_model)
        self.key_value = Linear(d_model, 2 * d_model)
        self.output = Linear(d_model, d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """X (B, T, D), mask (B, 1, L, T) bool -> (B, L, D) for the last L steps."""
        batch, length, width = x.shape
        last, heads = mask.shape[2], self.n_heads
        q = self.query(x[:, length - last :]).view(batch, last, heads, width // heads)
        k, v = self.key_value(x).view(batch, length, 2, heads, width // heads).unbind(2)
        # (B, T, H, D/H) -> (B, H, T, D/H)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.rotary:
            places = torch.arange(length, device=x.device)
            q, k = turn(q, places[length - last :]), turn(k, places)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(y.transpose(1, 2).reshape(batch, last, width))


class ResidualGate(nn.Module):
    """The plain residual connection: x + y."""

    def __init__(self, d_model: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """X, y (..., D) -> (..., D)."""
        return x + y


class GRUGate(nn.Module):
    """GTrXL's gate (Parisotto et al. 2020, arXiv 1910.06764, section 3.2).

    A GRU cell whose state is the stream and whose input is the block's output; its bias starts near
    the identity.
    """

    def __init__(self, d_model: int, bias: float = 2.0) -> None:
        super().__init__()
        self.from_y = Linear(d_model, 3 * d_model, bias=False)
        self.from_x = Linear(d_model, 2 * d_model, bias=False)
        self.candidate = Linear(d_model, d_model, bias=False)
        self.update_bias = nn.Parameter(torch.full((d_model,), bias))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Stream x and block output y (..., D) -> (..., D)."""
        y_reset, y_update, y_candidate = self.from_y(y).chunk(3, -1)
        x_reset, x_update = self.from_x(x).chunk(2, -1)
        reset = torch.sigmoid(y_reset + x_reset)
        update = torch.sigmoid(y_update + x_update - self.update_bias)
        candidate = torch.tanh(y_candidate + self.candidate(reset * x))
        return (1 - update) * x + update * candidate


GATES: dict[str, type[ResidualGate] | type[GRUGate]] = {"residual": ResidualGate, "gru": GRUGate}
