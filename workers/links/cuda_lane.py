"""The lane of a link on CUDA: a stream of its own beside the stage's, and events. Not yet run on a GPU."""

from collections.abc import Callable

import torch
from torch import Tensor

from greedypipe.workers.links.lane import HostLane, Lane

HIGH_PRIORITY = -1
"""The few blocks of a transfer start before those of a waiting computation."""


class CudaLane:
    """Events and one stream. The stage's stream is the current one of its main thread. Not yet run on a GPU.

    Events are made once per slot and recorded again and again.

    Args:
        device: CUDA, with its index.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.stream = torch.cuda.Stream(device, HIGH_PRIORITY)

    def enter(self) -> None:
        # A new thread has device 0 and its default stream, whatever its maker had.
        torch.cuda.set_device(self._device)
        torch.cuda.set_stream(self.stream)

    def new_mark(self) -> torch.cuda.Event:
        return torch.cuda.Event()

    def run(self, work: Callable[[], object]) -> None:
        work()

    def run_on_lane(self, work: Callable[[], object]) -> None:
        work()

    def mark_stage(self, mark: torch.cuda.Event) -> None:
        mark.record(torch.cuda.current_stream(self._device))

    def mark_lane(self, mark: torch.cuda.Event) -> None:
        mark.record(self.stream)

    def hold_lane(self, mark: torch.cuda.Event) -> None:
        self.stream.wait_event(mark)

    def hold_stage(self, mark: torch.cuda.Event) -> None:
        torch.cuda.current_stream(self._device).wait_event(mark)

    def is_reached(self, mark: torch.cuda.Event) -> bool:
        # Asked by threads that never set a device: without this they would make a context on device 0.
        with torch.cuda.device(self._device):
            return bool(mark.query())


def new_memory(size: int, device: torch.device) -> Tensor:
    """uint8 [size] on `device`, of any contents, to be written on any stream. Blocks until the device has done what it was
    given before, which may still use memory that this process has let go of."""
    memory = torch.empty(size, dtype=torch.uint8, device=device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return memory


def lane_of(device: torch.device) -> Lane:
    """The lane of a new link of a stage on `device`."""
    return CudaLane(device) if device.type == "cuda" else HostLane()
