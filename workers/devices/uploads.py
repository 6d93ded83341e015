"""Batches from the host's memory to a stage's GPU, each copied while the stage still computes on the one before."""

from collections.abc import Callable, Mapping
from itertools import cycle

import torch
from torch import Tensor

from greedypipe.workers.devices.normalised import Tensors, as_they_are
from greedypipe.workers.devices.side import Side, wait_until
from greedypipe.workers.links.messages import AnyMessage, Message

SLOTS = 3
"""Batches on their way or in use; the host waits before it makes one more."""


class Uploads:
    """Moves the messages of a stage to its device, beside the stage's work. On CUDA not yet run.

    The host copies a batch into page-locked memory, and the device fetches it as soon as the slot's earlier batch has
    been used. The host starts all work of a batch before the device has done it, so the next batch travels meanwhile. Bits,
    shapes and strides are those that the host has made.

    Args:
        device: The stage's.
        side: What the copies run on.
        arrived: What the stage's stream does first with the tensors of a message.
    """

    def __init__(self, device: torch.device, side: Side, arrived: Callable[[Tensors], Tensors] = as_they_are) -> None:
        self._device = device
        self._side = side
        self._arrived = arrived
        self._slots = cycle([_Slot(device, side) for _ in range(SLOTS)])
        self._lent: _Slot | None = None

    def moved(self, message: AnyMessage) -> AnyMessage:
        """The message with its tensors on the device, valid until `done`; what the stage does next waits for them there. One
        that is there already, or encoded, as it is."""
        tensors = {name: tensor for name, tensor in message.tensors.items() if isinstance(tensor, Tensor)}
        if not tensors or len(tensors) < len(message.tensors) or any(_is_on(self._device, one) for one in tensors.values()):
            return message
        self._lent = next(self._slots)
        there = self._arrived(self._lent.fill(tensors))
        return Message(message.kind, message.batch_id, message.step, there, message.batch_rows)

    def done(self) -> None:
        """The stage has started everything that reads the last message."""
        if self._lent:
            self._lent.give_back()
            self._lent = None


class _Slot:
    """Memory for one batch, on the host and on the device: a pair for every form that a tensor has had."""

    def __init__(self, device: torch.device, side: Side) -> None:
        self._device = device
        self._side = side
        self._has_come, self._is_read = side.new_mark(), side.new_mark()
        self._pairs: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def fill(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Waits until the slot's last batch has left the host's memory."""
        side = self._side
        wait_until(side, self._has_come, "take a batch")
        side.hold_lane(self._is_read)
        known: dict[tuple[object, ...], Tensor] = {}
        there = {}
        for name, tensor in tensors.items():
            # The image of stage 0 is its input too.
            same = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
            there[name] = known[same] = known[same] if same in known else self._sent(name, tensor)
        side.mark_lane(self._has_come)
        side.hold_stage(self._has_come)
        return there

    def give_back(self) -> None:
        self._side.mark_stage(self._is_read)

    def _sent(self, name: str, tensor: Tensor) -> Tensor:
        form = name, tensor.shape, tensor.stride(), tensor.dtype
        if form not in self._pairs:
            host = self._side.host_memory_like(tensor)
            self._pairs[form] = host, torch.empty_like(host, device=self._device)
            # It may be memory that the stage's last work still reads.
            self._side.mark_stage(self._is_read)
            self._side.hold_lane(self._is_read)
        here, there = self._pairs[form]
        here.copy_(tensor)
        self._side.run_aside(lambda: there.copy_(here, non_blocking=True))
        return there


def _is_on(device: torch.device, tensor: Tensor) -> bool:
    return tensor.device == device
