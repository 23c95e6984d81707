"""One process-wide setting of the C library's allocator."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h of the GNU C library
THRESHOLD_BYTES = 1 << 30


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
