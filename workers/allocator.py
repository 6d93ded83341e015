"""Keeps the memory that a training step frees for the next step."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of mallopt(3)."""
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Has the C library serve large tensors from memory that it keeps, instead of mapping each anew.

    By default glibc maps every large block for itself and gives it back when it is freed, so that the kernel zeroes all
    activations of every step page by page: a quarter of a stage's time on the machine of benchmarks/results. Peak
    memory can rise a little, as gaps between blocks are not given back. Affects the whole process.

    Returns:
        Whether the C library knows how; others than glibc do not.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
