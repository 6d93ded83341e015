"""Where an end of a link is, and which transport follows from where both are."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.distributed import is_nccl_available

from greedypipe.workers.this_host import memory_of_host

CPU, CUDA = "cpu", "cuda"


@dataclass(frozen=True)
class Place:
    """What an end tells the other one of itself.

    Attributes:
        memory: Equal where two processes share the host's memory (`memory_of_host`).
        device: Type of the stage's device.
        gpu: UUID of its GPU: processes that see different GPUs number them differently.
        nccl: NCCL's version; empty where torch has none.
        processes: The namespace of process numbers, which memory of a GPU is passed on within.
        expandable: Whether torch's memory on the GPU grows in segments, which cannot be passed on by handles.
        launches_block: Whether CUDA_LAUNCH_BLOCKING is set: a transfer would then wait for the other end before that end
            knows of it.
    """

    memory: str
    device: str
    gpu: str = ""
    nccl: str = ""
    processes: int = 0
    expandable: bool = False
    launches_block: bool = False

    @classmethod
    def of(cls, device: torch.device) -> "Place":
        """That of this process with its stage on `device`. The GPU is asked on CUDA only."""
        if device.type != CUDA:
            return cls(memory_of_host(), device.type)
        properties = torch.cuda.get_device_properties(device)
        version = torch.cuda.nccl.version() if is_nccl_available() else ()
        return cls(
            memory_of_host(),
            device.type,
            str(properties.uuid),
            ".".join(map(str, version)),
            Path("/proc/self/ns/pid").stat().st_ino,
            expandable=has_expandable_segments(),
            launches_block=launches_block(),
        )

    def text(self) -> str:
        """What `read` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> "Place":
        """The place that another process has told."""
        return cls(**json.loads(text))


def choose(wanted: str, here: Place, there: Place, peer: str) -> str:
    """The transport between two places; both ends find the same.

    Args:
        wanted: LinkConfig.transport.
        peer: The other end in words, e.g. "stage 2".

    Returns:
        "shm", "gloo", "nccl" or "ipc". The latter two may still turn out not to work.

    Raises:
        ValueError: The wanted transport cannot connect the two; one line.
    """
    obstacles = {"shm": _no_shm(here, there), "ipc": _no_ipc(here, there), "nccl": _no_nccl(here, there), "gloo": ""}
    if wanted == "auto":
        meant = ("shm", "ipc" if here.gpu == there.gpu else "nccl", "gloo")
        return next(transport for transport in meant if not obstacles[transport])
    if obstacle := obstacles[wanted]:
        raise ValueError(f"link.transport: got {wanted}, but {peer} {obstacle}; use gloo or auto")
    return wanted


def has_expandable_segments() -> bool:
    """Whether the environment asks torch for them."""
    settings = (os.environ.get(name, "") for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"))
    return any("expandable_segments:true" in setting.replace(" ", "").lower() for setting in settings)


def launches_block() -> bool:
    """Whether the environment makes every call of CUDA wait for its result."""
    return os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0")


def _no_shm(here: Place, there: Place) -> str:
    if here.memory != there.memory:
        return "shares no host memory with this stage"
    return "" if here.device == there.device == CPU else "is not on the CPU, or this stage is not"


def _no_ipc(here: Place, there: Place) -> str:
    if not here.device == there.device == CUDA:
        return "is not on a GPU, or this stage is not"
    if (here.memory, here.processes) != (there.memory, there.processes):
        return "is on another host than this stage, or in another container"
    if here.expandable or there.expandable:
        return "or this stage has expandable_segments in PYTORCH_CUDA_ALLOC_CONF, whose memory cannot be passed on"
    return ""


def _no_nccl(here: Place, there: Place) -> str:
    if not here.device == there.device == CUDA:
        return "is not on a GPU, or this stage is not"
    if here.gpu == there.gpu:
        return "is on the same GPU as this stage, which NCCL refuses"
    if not here.nccl or here.nccl != there.nccl:
        return f"has NCCL {there.nccl or 'nowhere'}, this stage {here.nccl or 'nowhere'}"
    if here.launches_block or there.launches_block:
        return "or this stage has CUDA_LAUNCH_BLOCKING set, which NCCL does not bear"
    return ""
