"""gloo as the wire of a paced link between stages on CUDA: through page-locked memory, beside the work of the stage.

Not yet run on a GPU; on the CPU and on a simulated device.
"""

import torch
from torch import Tensor

from greedypipe.workers.links.gloo import Wire
from greedypipe.workers.links.lane import Lane, wait_for_mark


class GlooWire:
    """Moves bytes as `pacing.Wire`: the link's thread waits, for its own device and in gloo, the stage's never does.

    One page-locked buffer is enough: the sender's is free when gloo has sent it, the receiver's when the message has moved
    on, which the link waits for before it receives the next one.

    Args:
        wire: Owned by this object.
        lane: Of the link.
        buffer: uint8, as long as a slot; page-locked where the slots are on CUDA.
        timeout_s: Deadline for the device.
    """

    meets_on_device = False

    def __init__(self, wire: Wire, lane: Lane, buffer: Tensor, timeout_s: float) -> None:
        self._wire = wire
        self._lane = lane
        self._buffer = buffer
        self._timeout_s = timeout_s
        self._copied = lane.new_mark()

    def send(self, memory: Tensor) -> None:
        part = self._buffer[: len(memory)]
        self._lane.run_on_lane(lambda: part.copy_(memory, non_blocking=True))
        self._lane.mark_lane(self._copied)
        if not wait_for_mark(self._lane, self._copied, self._timeout_s, lambda: True):
            raise TimeoutError(f"waited {self._timeout_s:g} s for its own device to copy a message")
        self._wire.send(part)

    def receive(self, memory: Tensor) -> None:
        part = self._buffer[: len(memory)]
        self._wire.receive(part)
        self._lane.run_on_lane(lambda: memory.copy_(part, non_blocking=True))

    def check(self) -> None:
        """No-op: what fails in gloo is raised by the call that waits for it."""

    def abort(self) -> None:
        self._wire.close()


def new_buffer(size: int, device: torch.device) -> Tensor:
    """uint8 [size] in host memory, page-locked for a stage on CUDA, whose device is then set."""
    return torch.zeros(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
