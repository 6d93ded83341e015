"""The GPU that a stage is on: which one, what it holds, and with what software it computes. Not yet run on a GPU."""

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import torch

from greedypipe.workers.telemetry.meter import Stopwatch
from greedypipe.workers.telemetry.records import Gpu
from greedypipe.workers.telemetry.results import GpuReport

DRIVER = Path("/proc/driver/nvidia/version")


def gpu_of(device: torch.device) -> Gpu | None:
    """The GPU of a stage on `device`; None on the CPU. Starts CUDA there."""
    if device.type != "cuda":
        return None
    found = torch.cuda.get_device_properties(device)
    return Gpu(str(device), found.name, str(found.uuid))


def report_gpu(device: torch.device, watch: Stopwatch) -> GpuReport | None:
    """What a stage has had of its GPU since `workers.memory.reset_peak_on`; None on the CPU. Does not wait for the GPU."""
    gpu = gpu_of(device)
    if gpu is None:
        return None
    free, total = torch.cuda.mem_get_info(device)
    return GpuReport(
        gpu.device,
        gpu.name,
        gpu.uuid,
        allocated_bytes=torch.cuda.max_memory_allocated(device),
        reserved_bytes=torch.cuda.max_memory_reserved(device),
        used_bytes=total - free,
        launch_time_s=watch.launch_s / max(watch.batches, 1),
    )


def sharing(gpus: Iterable[Gpu]) -> list[str]:
    """A line for each GPU that several processes of a run are on. They are told apart by their UUIDs: processes that see
    different ones may call each of them cuda:0."""
    ordered = sorted(gpus, key=lambda gpu: (gpu.uuid, gpu.device))
    found = [(list(group)) for _, group in groupby(ordered, key=lambda gpu: gpu.uuid)]
    return [
        f"{len(group)} processes share {group[0].device} ({group[0].name}), and take turns on it"
        for group in found
        if len(group) > 1
    ]


def gpu_versions() -> dict[str, str]:
    """Versions of what computes on the GPU, in a process that uses one; empty elsewhere: no driver is started to ask."""
    if not torch.cuda.is_initialized():
        return {}
    found = {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version()), "driver": _driver()}
    if torch.distributed.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return found


def _driver() -> str:
    text = DRIVER.read_text(encoding="utf-8") if DRIVER.exists() else ""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return found.group() if found else ""
