"""Memory: what this host has left, the calling process's peak, and whether it keeps what a training step frees."""

import contextlib
import ctypes
import resource
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEMINFO, GROUPS, GROUP_ROOT = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
RESET_PEAK = "5"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of mallopt(3)."""
NEVER = 2**31 - 1


def reset_peak_memory() -> None:
    """Restarts the measurement where the kernel supports it (Linux, see proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        CLEAR.write_text(RESET_PEAK, encoding="utf-8")


def reset_peak_on(device: torch.device) -> None:
    """Restarts the measurement of a GPU's memory, behind whatever has tried blocks out there; no-op for the CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory since `reset_peak_memory`: a GPU's allocations, or else the process's resident memory.

    Resident memory counts the shared pages of a link's slots at both ends of the link. It is the kernel's high-water mark
    of this process; the fallback, getrusage's, is inherited from the parent process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = STATUS.read_text(encoding="utf-8").splitlines() if STATUS.exists() else []
    marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return 1024 * (marks[0] if marks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def available_bytes() -> int | None:
    """Memory that processes of this host can still get without swapping, within this process's control groups; None where
    the kernel does not say."""
    lines = MEMINFO.read_text(encoding="utf-8").splitlines() if MEMINFO.exists() else []
    found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return min([*found, *_left_in_groups()], default=None)


def _left_in_groups() -> list[int]:
    """What the limits of this process's control group (version 2), and of those around it, leave."""
    left = []
    for line in GROUPS.read_text(encoding="utf-8").splitlines() if GROUPS.exists() else []:
        _, _, path = line.partition("0::/")
        for group in [GROUP_ROOT / path, *(GROUP_ROOT / path).parents]:
            with contextlib.suppress(OSError, ValueError):
                # The limit is a word where there is none.
                limit, used = (int((group / name).read_text(encoding="utf-8")) for name in ("memory.max", "memory.current"))
                left.append(limit - used + _cached_bytes(group))
    return left


def _cached_bytes(group: Path) -> int:
    """Copies of files, which the kernel drops as soon as it needs the memory."""
    lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def keep_freed_memory() -> bool:
    """Makes the C library serve large tensors from memory that it keeps, instead of mapping each one.

    By default glibc maps every large block separately and unmaps it when it is freed, so that the kernel zeroes all
    activations of every step page by page: a quarter of a stage's time on the machine of benchmarks/results. Peak
    memory can rise a little, as gaps between blocks are not returned. Affects the whole process.

    Returns:
        Whether the C library supports this; only glibc does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
