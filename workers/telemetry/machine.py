"""The host that a process runs on, its versions, and its processes."""

import contextlib
import os
import platform
import signal
import socket
from pathlib import Path
from typing import Any

import torch

BF16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}
"""Any of them in /proc/cpuinfo's flags (Arm: Features) says that the processor computes in bf16."""


def host_name() -> str:
    """The name that identifies this host on the board."""
    return socket.gethostname()


def kill(pid: int) -> None:
    """Kills a process with SIGKILL: a stopped one would not react to SIGTERM, and its parent would wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process of this host runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def versions() -> dict[str, str]:
    """Versions of the software that the figures depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__}


def hardware() -> dict[str, Any]:
    """Processor and cores of this host, and its GPUs where this process uses one: no driver is started to ask."""
    cpu = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    count = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    gpus = [torch.cuda.get_device_name(index) for index in range(count)]
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "gpus": gpus}


def emulates_bf16() -> bool:
    """Whether this host's processor is known to have no instructions for bf16, so that torch converts to fp32 and back, and
    takes longer than in fp32. False where nothing is known."""
    flags = next((line.partition(":")[2].split() for line in _cpuinfo() if line.startswith(("flags", "Features"))), [])
    return bool(flags) and not BF16_INSTRUCTIONS.intersection(flags)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
