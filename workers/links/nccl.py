"""NCCL through torch.distributed: the wire of a paced link between two GPUs. Not yet run on a GPU.

Each directed link has a process group of two ranks, 0 the sender and 1 the receiver: a communicator runs its operations one
after the other, and NCCL allows no two of one communicator at a time. Connected eagerly, so that the first message waits for
no set-up. torch's own watchdogs are told to end no process: an end is found dead by its socket, a transfer that fails by
what they have noted of it, a late one by its deadline, and the supervisor alone ends processes.
"""

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from greedypipe.workers.links.pacing import BrokenWire
from greedypipe.workers.links.patience import Patience

ENVIRONMENT = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_RETHROW_CUDA_ERRORS": "0",  # in the watchdog; the stage finds them in its own calls
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
    # Four times this the watchdog sleeps behind an error, and whoever lets go of the group waits for it.
    "TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC": "0",
    "TORCH_FR_BUFFER_SIZE": "0",
}
"""Has torch's own threads look for errors and end no process. Read by every group when it is made."""
SUCCESS = "SUCCESS"
"""Of torch's ErrorType, which is not public."""
MAX_CTAS = 4
"""Multiprocessors that a transfer may hold, some 20 GB/s each over NVLink: it has the time of a whole step."""
FOREVER = timedelta(days=1)
"""An idle link is no failure."""
LAUNCHING = threading.Lock()
"""Threads that put transfers of several communicators on one device at a time may put them on in different orders."""


class NcclWire:
    """Puts halves of transfers on the lane, as `pacing.Wire`. Not yet run on a GPU.

    Args:
        group: ProcessGroupNCCL of two ranks; owned by this object.
        peer: The other end in words, e.g. "stage 1".
    """

    meets_on_device = True

    def __init__(self, group: Any, own_rank: int, peer: str) -> None:
        self._group = group
        self._peer_rank = 1 - own_rank
        self._peer = peer

    def send(self, memory: Tensor) -> None:
        # The group has a stream of its own, and lets it wait for the current one: the lane. `wait` lets the lane wait for
        # it in turn, not the host.
        self._put(lambda: self._group.send([memory], self._peer_rank, 0))

    def receive(self, memory: Tensor) -> None:
        self._put(lambda: self._group.recv([memory], self._peer_rank, 0))

    def check(self) -> None:
        # Ten times a second a thread of torch's asks NCCL about each transfer that has not ended; this reads what it found.
        if (group := self._group) and (found := group.get_error().name) != SUCCESS:
            raise self._broken(found)

    def abort(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.abort()

    def _put(self, operation: Callable[[], Any]) -> None:
        self.check()
        try:
            with LAUNCHING:
                work = operation()
            work.wait()
        except dist.DistBackendError as error:
            raise self._broken(str(error).strip().splitlines()[0]) from error

    def _broken(self, said: str) -> BrokenWire:
        return BrokenWire(f"lost {self._peer}: NCCL reports {said} (NCCL_DEBUG=INFO says more)")


def leave_ending_to_supervisor() -> None:
    """Tells torch `ENVIRONMENT`; what a user has set stays. To be called in a stage's process before any group is made."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def make_nccl_group(store: dist.Store, rank: int, device: torch.device, name: str, patience: Patience) -> Any:
    """Connects one end of a link; blocks until the other has come. No default group of torch.distributed is touched.

    Not yet run on a GPU. NCCL's set-up cannot be interrupted: one that is given up stays in a thread of its own.

    Args:
        store: For this group alone.
        device: CUDA, with its index.

    Raises:
        ConnectionError: The other end did not come in time; GivenUp if waiting became pointless.
        RuntimeError: NCCL cannot connect them.
    """
    nccl: Any = dist.ProcessGroupNCCL  # missing where torch is built without
    options = nccl.Options(is_high_priority_stream=True)
    options._timeout = FOREVER
    options.config.min_ctas, options.config.max_ctas = 1, MAX_CTAS
    options.group_name = name

    def connect() -> Any:
        torch.cuda.set_device(device)
        group = nccl(store, rank, 2, options)
        group.eager_connect_single_device(device)
        return group

    return patience.call(connect)
