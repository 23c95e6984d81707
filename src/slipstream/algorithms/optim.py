"""Adam without the bookkeeping: gradients in, parameters moved, one fused kernel."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def movable(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those that may be moved; none of a frozen network's."""
    return [parameter for parameter in parameters if parameter.requires_grad]


class FusedAdam:
    """Adam (Kingma and Ba 2015) over a fixed list of parameters.

    `torch.optim.Adam(fused=True)` spends several times longer in its Python than in the kernel
    when networks are this small; this calls the same kernel directly, with the gradients handed
    in, so that nothing is accumulated or zeroed.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter | Tensor],
        lr: float,
        apart: Iterable[nn.Parameter | Tensor] = (),
        apart_lr: float | None = None,
    ) -> None:
        """Move `parameters`, of which there may be none, at `lr`.

        Those that are also in `apart` are moved at `apart_lr`, unless that is None.
        """
        self.parameters = list(parameters)
        ids = {id(p) for p in apart} if apart_lr is not None else set[int]()
        rates = {True: lr if apart_lr is None else apart_lr, False: lr}
        self.groups: list[tuple[float, list[int]]] = []
        for is_apart, rate in rates.items():
            which = [i for i, p in enumerate(self.parameters) if (id(p) in ids) is is_apart]
            if which:
                self.groups.append((rate, which))
        self.exp_avg = [torch.zeros_like(p) for p in self.parameters]
        self.exp_avg_sq = [torch.zeros_like(p) for p in self.parameters]
        device = self.parameters[0].device if self.parameters else None
        self.num_steps = torch.zeros((), device=device)

    def minimize(self, loss: Tensor) -> None:
        """One step down the gradient of a scalar loss, with respect to these parameters alone."""
        self.step(torch.autograd.grad(loss, self.parameters))

    @torch.no_grad()
    def step(self, grads: Iterable[Tensor]) -> None:
        """One step along given gradients, in the order of the parameters."""
        self.num_steps += 1
        # The kernel walks the memory of both in step: a transposed gradient would be scrambled.
        grads = [grad.contiguous() for grad in grads]
        for lr, which in self.groups:
            torch._fused_adam_(  # pyright: ignore
                [self.parameters[i] for i in which],
                [grads[i] for i in which],
                [self.exp_avg[i] for i in which],
                [self.exp_avg_sq[i] for i in which],
                [],
                [self.num_steps] * len(which),
                lr=lr,
                beta1=0.9,
                beta2=0.999,
                weight_decay=0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )

    def state_dict(self) -> dict[str, Any]:
        """Moments, in the order of the parameters, and the step count."""
        return {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq, "num_steps": self.num_steps}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in ("exp_avg", "exp_avg_sq"):
            for moment, value in zip(getattr(self, name), state[name], strict=True):
                moment.copy_(value)
        self.num_steps.copy_(state["num_steps"])
