"""A stream of a stage's own copies beside its computing, and the host memory that they go to and come from."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from greedypipe.workers.links.cuda_lane import CudaLane
from greedypipe.workers.links.lane import HostLane, Lane, Mark, wait_for_mark

DEVICE_S = 600.0
"""How long the host waits for what is on the device already: longer than any supervisor waits for the stage."""


class Side(Lane, Protocol):
    """A lane that the stage's own main thread uses beside the stage's stream."""

    def run_aside(self, work: Callable[[], object]) -> None:
        """Puts work on the lane. Main thread."""

    def host_memory_like(self, tensor: Tensor) -> Tensor:
        """Memory of the host with a tensor's shape, strides and dtype, from and to which the device copies by itself."""


class HostSide(HostLane):
    """A device whose work is done when the call returns."""

    def run_aside(self, work: Callable[[], object]) -> None:
        work()

    def host_memory_like(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device="cpu")


class CudaSide(CudaLane):
    """A stream and page-locked memory. Not yet run on a GPU.

    Args:
        device: CUDA, with its index; the current one of the calling thread.
    """

    def run_aside(self, work: Callable[[], object]) -> None:
        with torch.cuda.stream(self.stream):
            work()

    def host_memory_like(self, tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device="cpu", pin_memory=True)


def wait_until(side: Side, mark: Mark, what: str) -> None:
    """Blocks until a mark is reached.

    Args:
        what: What the device is to do, for the error.

    Raises:
        TimeoutError: It was not reached in time.
        RuntimeError: The device has failed.
    """
    if not side.is_reached(mark) and not wait_for_mark(side, mark, DEVICE_S, lambda: True):
        raise TimeoutError(f"waited {DEVICE_S:g} s for the stage's own device to {what}")
