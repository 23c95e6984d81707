"""Billions of operations a second of one fp32 product on each backend, in its caches.

    python -m benchmarks.products

What an update of two layers of 256 could reach at best: see `benchmarks.stage1_speed`.
"""

import statistics
import time

import torch
import tyro

from benchmarks.contest import use_one_core, write_results
from slipstream.networks.linear import Backend, bf16_available, linear, set_matmul_backend

SIZE = 256
REPEATS, PRODUCTS = 20, 50


def rate(backend: Backend) -> float:
    """10^9 operations (multiplications and additions) a CPU second: (256, 256) x (256, 256)."""
    set_matmul_backend(backend)
    x, weight = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    found: list[float] = []
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(PRODUCTS):
            linear(x, weight, None)
        found.append(2e-9 * SIZE**3 * PRODUCTS / (time.process_time() - start))
    return statistics.median(found)


def main() -> None:
    """Measure every backend that there is here; write the table."""
    use_one_core()
    torch.set_num_threads(1)
    backends: list[Backend] = ["default", "onednn"]
    if bf16_available():
        backends.append("bf16")
    with torch.no_grad():
        rates = {name: rate(name) for name in backends}
    lines = ["| backend | 10^9 operations a CPU second |", "|---|---:|"]
    lines += [f"| {name} | {value:.0f} |" for name, value in rates.items()]
    text = "\n".join(lines)
    print(text)
    write_results("products", "python -m benchmarks.products", {"size": SIZE}, rates, text)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
