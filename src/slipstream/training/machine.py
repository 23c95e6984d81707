"""What a process is set to before it trains: allocator, threads, seed, matrix products."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from slipstream.config import RunConfig
from slipstream.errors import SlipstreamError
from slipstream.networks.linear import Backend, fastest_matmul_backend, set_matmul_backend

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h of the GNU C library
THRESHOLD_BYTES = 1 << 30


def set_up_process(config: RunConfig, matmul: Backend | None = None) -> Backend:
    """Make this process ready for a run.

    Args:
        config: the run's configuration.
        matmul: what a run that is resumed multiplies matrices with; any other rounds differently.

    Returns:
        What matrices are multiplied with.

    Raises:
        SlipstreamError: the device cannot be used.
    """
    _check_device(config.device)
    keep_freed_memory()
    torch.set_num_threads(config.num_threads)
    if matmul is None:
        matmul = fastest_matmul_backend() if config.matmul == "auto" else config.matmul
    set_matmul_backend(matmul)
    torch.manual_seed(config.seed)  # last: a measurement draws numbers
    return matmul


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed instead of giving it back to the system at once.

    Tensors above 128 KiB are otherwise mapped afresh, page by page, at every update: 10 to 20 % of
    the time of an update on a CPU.

    Returns:
        Whether the C library took the setting (the GNU one does).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, THRESHOLD_BYTES)) and bool(
        mallopt(M_TRIM_THRESHOLD, THRESHOLD_BYTES)
    )


@contextmanager
def spare_collector() -> Iterator[None]:
    """Leave what exists already out of garbage collections meanwhile.

    ManiSkill collects garbage whenever it builds a scene, for each episode of an evaluation: among
    all the objects of the imported libraries that takes longer than the scene. Where the caller has
    set objects aside before, that is left as it is.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _check_device(name: str) -> None:
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(": ")[0]
        raise SlipstreamError(
            f"device '{name}' cannot be used ({reason}); choose cpu, or a CUDA device where torch "
            "was built for it"
        ) from error
