"""Step 0: where this is, and what the smallest things cost; nothing else means anything without it."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from tests.gpu.facts import Facts, Setting

SMI = "name,driver_version,uuid,memory.total,compute_mode,mig.mode.current"
COPIED_BYTES = 2**25
NO_DRIVER_HERE = "no driver is asked"


def run(found: Facts, setting: Setting) -> None:
    found.attempt("versions", partial(_versions, setting.pretend))
    found.attempt("nccl", _nccl)
    if not setting.pretend:
        for name, what in (("device", _device), ("costs", _costs), ("copies", _copies)):
            found.attempt(name, what)


def _versions(pretend: bool) -> dict[str, Any]:
    smi = NO_DRIVER_HERE if pretend else _smi()
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "CUDA": torch.version.cuda or ""}
    return {
        "versions": versions,
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "smi": smi,
    }


def _smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={SMI}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"


def _nccl() -> dict[str, Any]:
    if not torch.distributed.is_nccl_available():
        return {"nccl": "torch was built without"}
    return {"versions": {"NCCL": ".".join(map(str, torch.cuda.nccl.version()))}}


def _device() -> dict[str, Any]:
    torch.cuda.set_device(0)
    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info()
    return {
        "gpu": properties.name,
        "uuid": str(properties.uuid),
        "multiprocessors": properties.multi_processor_count,
        "free_mib": free >> 20,
        "total_mib": total >> 20,
        "versions": {"cuDNN": str(torch.backends.cudnn.version())},
    }


def _costs() -> dict[str, Any]:
    sync = torch.cuda.synchronize
    x, stream, event = torch.ones(8, device="cuda"), torch.cuda.Stream(0, -1), torch.cuda.Event()
    event.record()
    sync()
    return {
        "small_kernel_us": _microseconds(lambda: x.add_(1), 2000, sync),
        "event_query_us": _microseconds(event.query, 2000),
        "event_record_us": _microseconds(event.record, 2000, sync),
        "stream_wait_us": _microseconds(lambda: stream.wait_event(event), 2000, sync),
        "sleep_20us_takes_us": _microseconds(lambda: time.sleep(20e-6), 500),
    }


def _copies() -> dict[str, Any]:
    here, there = (torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda") for _ in range(2))
    pinned = torch.empty(COPIED_BYTES, dtype=torch.uint8, pin_memory=True)
    pageable = torch.empty(COPIED_BYTES, dtype=torch.uint8)
    ways = {
        "on the device": (here, there),
        "to it": (here, pinned),
        "from it": (pinned, here),
        "to it, pageable": (here, pageable),
        "from it, pageable": (pageable, here),
    }

    def gb_s(target: torch.Tensor, source: torch.Tensor) -> float:
        copy = partial(target.copy_, source, non_blocking=True)
        return round(COPIED_BYTES / _microseconds(copy, 20, torch.cuda.synchronize) / 1e3, 1)

    return {"gb_s": {name: gb_s(*way) for name, way in ways.items()}}


def _microseconds(what: Callable[[], object], times: int, settle: Callable[[], object] = lambda: None) -> float:
    """Per call, with the work that it causes."""
    what()
    settle()
    started = time.perf_counter()
    for _ in range(times):
        what()
    settle()
    return round(1e6 * (time.perf_counter() - started) / times, 2)
