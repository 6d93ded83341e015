"""The peak of a process is its own, and of the time since it was reset."""

import mmap
import os
from pathlib import Path

import pytest
import torch

from greedypipe.workers.memory import peak_memory_bytes, reset_peak_memory

CPU = torch.device("cpu")
SIZE_BYTES = 200 << 20


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel has no /proc/self/clear_refs")
def test_a_reset_forgets_what_has_been_freed() -> None:
    reset_peak_memory()
    before = peak_memory_bytes(CPU)
    # Not from the allocator, which may have kept memory that another test has freed, and may keep this.
    with mmap.mmap(-1, SIZE_BYTES) as memory:
        for offset in range(0, SIZE_BYTES, mmap.PAGESIZE):
            memory[offset] = 1
        held = peak_memory_bytes(CPU)
    assert held - before > 0.9 * SIZE_BYTES
    assert held - peak_memory_bytes(CPU) < 0.1 * SIZE_BYTES, "the peak stays; the kernel counts in batches of pages"
    reset_peak_memory()
    assert held - peak_memory_bytes(CPU) > 0.9 * SIZE_BYTES


def test_without_a_kernel_that_tells_the_peak_is_that_of_getrusage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("greedypipe.workers.memory.STATUS", tmp_path / "none")
    monkeypatch.setattr("greedypipe.workers.memory.CLEAR", tmp_path / "none" / "none")
    reset_peak_memory()
    assert peak_memory_bytes(CPU) > 1 << 20
