"""A process group of torch's for the steps about NCCL; where there is no GPU, gloo's in its place, to try the steps."""

import datetime
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from greedypipe.workers.links.nccl import leave_ending_to_supervisor
from tests.gpu.facts import Setting

T = TypeVar("T")
MAX_CTAS = 4
DEBUG = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET,P2P"}


def own_device(setting: Setting) -> torch.device:
    """GPU 0, made current; the CPU where the step only pretends."""
    if setting.pretend:
        return torch.device("cpu")
    torch.cuda.set_device(0)
    return torch.device("cuda", 0)


def set_environment(folder: Path, rank: int, *, apart: bool) -> None:
    """Call before the first group is made.

    Args:
        apart: NCCL up to 2.29 refuses two ranks on one GPU; told that they are on two hosts, it goes over the sockets of the
            loopback, which is slow, but runs its real initialisation, transfers, errors and aborts.
    """
    leave_ending_to_supervisor()
    os.environ.update(DEBUG, NCCL_DEBUG_FILE=str(folder / f"nccl.{rank}.%p.log"))
    if apart:
        os.environ.update(NCCL_HOSTID=f"host-of-rank-{rank}", NCCL_SOCKET_IFNAME="lo", NCCL_IB_DISABLE="1")


def fresh_file(folder: Path, name: str) -> Path:
    """Where ranks meet; what an earlier run has left there is removed."""
    path = folder / f"{name}.store"
    path.unlink(missing_ok=True)
    return path


def make_group(store_file: Path, rank: int, ranks: int, device: torch.device) -> Any:
    """The group; with NCCL its communicator too, so that this blocks until all ranks are there."""
    store = dist.FileStore(str(store_file), ranks)
    if device.type == "cpu":
        gloo: Any = dist.ProcessGroupGloo
        return gloo(store, rank, ranks, datetime.timedelta(seconds=60))
    nccl: Any = dist.ProcessGroupNCCL
    options = nccl.Options(is_high_priority_stream=True)
    options._timeout = datetime.timedelta(hours=24)
    options.config.max_ctas, options.config.min_ctas = MAX_CTAS, 1
    group = nccl(store, rank, ranks, options)
    group.eager_connect_single_device(device)
    return group


def within(seconds: float, what: str, call: Callable[[], T], device: torch.device) -> T:
    """What `call` returns, from a thread of its own, which is left behind at the deadline: it cannot be interrupted.

    Raises:
        TimeoutError: At the deadline.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            found.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"waited {seconds:g} s for {what}")
    return found[0]


class Moment:
    """A point in the work of the current stream; on the CPU it is reached at once."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None

    def mark(self) -> None:
        """Now."""
        if self._event:
            self._event.record()

    def is_reached(self) -> bool:
        """Whether the device has come there. Does not wait."""
        return self._event is None or self._event.query()

    def wait(self, seconds: float) -> bool:
        """Whether the device comes there in time: without a call that has no deadline."""
        deadline = time.monotonic() + seconds
        while not self.is_reached():
            if time.monotonic() > deadline:
                return False
            time.sleep(2e-5)
        return True


def free_mib(device: torch.device) -> int:
    """Free memory of the GPU; 0 on the CPU."""
    return torch.cuda.mem_get_info(device)[0] >> 20 if device.type == "cuda" else 0


def tell_logs(folder: Path, rank: int) -> None:
    """Prints the end of what NCCL has written in this process."""
    for path in sorted(folder.glob(f"nccl.{rank}.{os.getpid()}.log")):
        text = path.read_text(errors="replace").splitlines()[-40:]
        print(f"----- {path.name}\n" + "\n".join(text), flush=True)
