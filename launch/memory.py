"""How much memory the calling process has held at most."""

import contextlib
import resource
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def reset_peak_memory() -> None:
    """Starts the measurement anew where the kernel can (Linux, see proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        CLEAR.write_text(RESET_PEAK)


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory since `reset_peak_memory`: a GPU's allocations, or else the process's resident memory.

    Resident memory counts the shared pages of a link's slots at both of its ends. It is the kernel's high-water mark of
    this very process; getrusage's, taken where there is no other, is inherited from whoever started the process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return 1024 * (marks[0] if marks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
