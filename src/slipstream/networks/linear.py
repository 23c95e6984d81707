"""Matrix products, routed to whichever backend is faster on this processor.

On AMD processors with AVX-512, torch's default fp32 products (MKL) run at half the speed of
oneDNN's; on others it is the reverse. The choice is measured, never guessed from a name.
"""

import statistics
import time
from typing import Any, Literal

import torch
from torch import Tensor, nn

from slipstream.errors import SlipstreamError

Backend = Literal["default", "onednn", "bf16"]

BF16_MIN_SIZE = 64
"""Below this many rows, terms or columns, converting to bf16 costs more than its product saves. So
acting, one row at a time, is in fp32 whatever the backend."""

_state: dict[str, Backend] = {"backend": "default"}


def set_matmul_backend(backend: Backend) -> None:
    """Choose the fp32 product of every `Linear` on the CPU, like torch's own backend flags.

    `bf16` keeps weights, optimizer and activations in fp32 and rounds the factors of each large
    product, and its result, to bf16 (8 bits of mantissa): another trade than the other two.

    Raises:
        SlipstreamError: bf16 on a processor without instructions for it.
    """
    if backend == "bf16" and not bf16_available():
        raise SlipstreamError(
            "matmul is 'bf16', but this processor has no bf16 instructions (AVX512_BF16 or AMX), "
            "without which it is far slower; choose auto"
        )
    _state["backend"] = backend


def matmul_backend() -> Backend:
    """The backend in force."""
    return _state["backend"]


def onednn_available() -> bool:
    """Whether this build of torch has the oneDNN linear operator."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def bf16_available() -> bool:
    """Whether the processor multiplies in bf16 itself, rather than by emulation."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def fastest_matmul_backend(rows: int = 512, width: int = 256, seconds: float = 0.3) -> Backend:
    """Measure one forward and backward product on both backends, in turns, and name the faster.

    The default is kept unless oneDNN wins by 15 % in the median of the turns, which noise on a
    busy machine does not make. A resumed run must use the choice it started with: the two
    backends round differently.
    """
    if not onednn_available():
        return "default"
    x, weight = torch.randn(rows, width), torch.randn(width, width, requires_grad=True)
    bias, grad = torch.zeros(width), torch.randn(rows, width)
    before = matmul_backend()
    backends: tuple[Backend, Backend] = ("default", "onednn")  # bf16 rounds: never by itself
    ratios: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(ratios) < 20 or time.perf_counter() < deadline:
        taken: list[float] = []
        for backend in backends:
            set_matmul_backend(backend)
            start = time.process_time()  # CPU time: being interrupted does not count
            linear(x, weight, bias).backward(grad)
            taken.append(max(time.process_time() - start, 1e-9))
        ratios.append(taken[1] / taken[0])
    set_matmul_backend(before)
    return "onednn" if statistics.median(ratios[1:]) < 0.85 else "default"  # the first warms up


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    """x (M, K), weight (N, K), bias (N,) -> (M, N), every product through oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        # Strided operands fall to a reference kernel that is orders of magnitude slower.
        grad = grad_outputs[0].contiguous()
        need_x, need_weight, need_bias = ctx.needs_input_grad
        return (
            _onednn(grad, weight.t().contiguous()) if need_x else None,
            _onednn(grad.t().contiguous(), x.t().contiguous()) if need_weight else None,
            grad.sum(0) if need_bias and ctx.has_bias else None,
        )


class _BF16Product(torch.autograd.Function):
    """x (..., M, K), weight (..., K, N) -> (..., M, N) in fp32, from factors rounded to bf16.

    The processor sums in fp32. x may lack the leading dimension of the weight.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        return torch.matmul(x, weight).float()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad_outputs[0].bfloat16()
        need_x, need_weight = ctx.needs_input_grad
        grad_x = grad_weight = None
        if need_x:
            grad_x = torch.matmul(grad, weight.mT).float()
            grad_x = grad_x.sum(0) if grad_x.dim() > x.dim() else grad_x
        if need_weight:
            grad_weight = torch.matmul(x.mT, grad).float()
        return grad_x, grad_weight


def _rounds(x: Tensor, weight: Tensor) -> bool:
    """Whether a product is one of those that the bf16 backend takes."""
    return (
        _state["backend"] == "bf16"
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and min(*weight.shape[-2:], x.numel() // x.shape[-1]) >= BF16_MIN_SIZE
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X (..., K), weight (N, K), bias (N,) -> (..., N)."""
    if _rounds(x, weight):
        rows = x.reshape(-1, x.shape[-1])
        y = _BF16Product.apply(rows, weight.t()).view(*x.shape[:-1], -1)  # pyright: ignore
        return y if bias is None else y + bias
    if _state["backend"] == "onednn" and x.device.type == "cpu" and x.dtype == torch.float32:
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        return _OneDNNLinear.apply(rows, weight, bias).view(*x.shape[:-1], -1)  # pyright: ignore
    return nn.functional.linear(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` whose product goes through the backend in force."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(input, self.weight, self.bias)


class EnsembleLinear(nn.Module):
    """E independent linear layers over E inputs: x (E, M, K) -> (E, M, N), one batched product."""

    def __init__(self, n_members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5  # the initialisation of nn.Linear
        self.weight = nn.Parameter(torch.empty(n_members, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(n_members, 1, out_features))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def first(self, x: Tensor) -> Tensor:
        """The first member alone: x (M, K) -> (M, N)."""
        return linear(x, self.weight[0].t(), self.bias[0, 0])

    def forward(self, x: Tensor) -> Tensor:
        """X (E, M, K), or (M, K) for all alike -> (E, M, N)."""
        weight, bias = self.weight, self.bias
        if _rounds(x, weight):
            return _BF16Product.apply(x, weight) + bias  # pyright: ignore
        if _state["backend"] == "onednn" and x.device.type == "cpu":
            xs = x if x.dim() == 3 else [x] * len(weight)
            return torch.stack(
                [linear(xs[i], weight[i].t(), bias[i, 0]) for i in range(len(weight))]
            )
        return torch.baddbmm(bias, x.expand(len(weight), *x.shape[-2:]), weight)
