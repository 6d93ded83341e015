"""Memory and events of a GPU that two processes of one host share, for a mapped link. Not yet run on a GPU.

The receiver allocates all slots in one tensor, whose handle it gives to the sender through the store, with those of its
events; the sender opens them and gives those of its own events. Handles come through torch, which frees the memory only when
the sender has let go of it.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.distributed import Store

from greedypipe.workers.links.control import ControlSocket
from greedypipe.workers.links.cuda_lane import new_memory
from greedypipe.workers.links.lane import Lane, Mark, wait_for_mark
from greedypipe.workers.links.mapped import MappedSlot
from greedypipe.workers.links.messages import MessageLayout
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.self_test import READY, RIGHT, WRONG, expect, insist, pattern
from greedypipe.workers.links.slots import BareSlot, payload_bytes
from greedypipe.workers.links.trial import Unfit

ALIGNMENT_BYTES = 512
"""As of torch's own memory on a GPU, so that kernels are chosen as for any tensor."""


class Passing(Protocol):
    """How memory and marks of a device are passed to another process, as text."""

    def new_mark(self) -> Mark:
        """A mark that can be passed on."""

    def give(self, memory: Tensor) -> str:
        """Passes memory on; the giver keeps the tensor."""

    def take(self, text: str) -> Tensor:
        """The memory that the other process has given: the same bytes. Raises RuntimeError where that cannot be."""

    def give_mark(self, mark: Mark) -> str:
        """Passes a mark on; the giver keeps it, and alone marks it."""

    def take_mark(self, text: str) -> Mark:
        """The mark that the other process has given, to wait for."""


class CudaPassing:
    """CUDA's handles. Not yet run on a GPU.

    Args:
        device: Of this process's stage, with its index.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def new_mark(self) -> torch.cuda.Event:
        with torch.cuda.device(self._device):
            return torch.cuda.Event(interprocess=True)

    def give(self, memory: Tensor) -> str:
        storage: Any = memory.untyped_storage()
        _, *handles = storage._share_cuda_()
        gpu = str(torch.cuda.get_device_properties(self._device).uuid)
        return json.dumps([gpu, *(one.hex() if isinstance(one, bytes) else one for one in handles)])

    def take(self, text: str) -> Tensor:
        gpu, handle, size, offset, counter, counter_offset, event, must_wait = json.loads(text)
        index = self._index_of(gpu)
        shared: Any = torch.UntypedStorage
        storage = shared._new_shared_cuda(
            index,
            bytes.fromhex(handle),
            size,
            offset,
            bytes.fromhex(counter),
            counter_offset,
            bytes.fromhex(event),
            must_wait,
        )
        return torch.empty(0, dtype=torch.uint8, device=torch.device("cuda", index)).set_(storage)

    def give_mark(self, mark: torch.cuda.Event) -> str:
        with torch.cuda.device(self._device):
            return bytes(mark.ipc_handle()).hex()

    def take_mark(self, text: str) -> torch.cuda.Event:
        mark: torch.cuda.Event = torch.cuda.Event.from_ipc_handle(self._device, bytes.fromhex(text))
        return mark

    @staticmethod
    def _index_of(gpu: str) -> int:
        """The number that a GPU has here: processes that see different GPUs number them differently."""
        for index in range(torch.cuda.device_count()):
            if str(torch.cuda.get_device_properties(index).uuid) == gpu:
                return index
        raise Unfit(f"GPU {gpu} of the receiver is not visible to the sender")


class MappedEnd(NamedTuple):
    """One end of a mapped link before its first message."""

    control: ControlSocket
    slots: Sequence[MappedSlot]


def share_slots(
    store: Store, layout: MessageLayout, slots: int, device: torch.device, passing: Passing, patience: Patience
) -> list[MappedSlot]:
    """Makes the slots of a receiver and passes them on; blocks until the sender has passed on its marks.

    Raises:
        ConnectionError: The sender did not come in time; GivenUp if waiting became pointless.
        RuntimeError: The device has no room for them, or cannot share.
    """
    stride = _stride(layout)
    memory = new_memory(slots * stride, device)
    used = [passing.new_mark() for _ in range(slots)]
    given = {"memory": passing.give(memory), "used": [passing.give_mark(mark) for mark in used]}
    store.set("slots", json.dumps(given))
    filled = [passing.take_mark(one) for one in json.loads(patience.read(store, "filled"))]
    return _cut(layout, memory, filled, used)


def open_slots(store: Store, layout: MessageLayout, passing: Passing, patience: Patience) -> list[MappedSlot]:
    """The slots that the receiver has passed on, mapped into this process: the counterpart of `share_slots`."""
    given = json.loads(patience.read(store, "slots"))
    memory = passing.take(given["memory"])
    used = [passing.take_mark(one) for one in given["used"]]
    filled = [passing.new_mark() for _ in used]
    store.set("filled", json.dumps([passing.give_mark(mark) for mark in filled]))
    return _cut(layout, memory, filled, used)


def write_pattern(end: MappedEnd, lane: Lane, timeout_s: float) -> None:
    """The sender's part of the self-test: writes a pattern into a slot, and waits until the receiver has read it.

    Blocks; in a thread that has entered the lane.

    Raises:
        Unfit: The receiver read something else.
        ConnectionError: It is gone.
        TimeoutError: It says nothing, or the device does not end.
    """
    control, (mapped, *_) = end
    memory = mapped.slot.memory
    memory.copy_(pattern(len(memory), memory.device))
    lane.mark_stage(mapped.filled)
    control.put(READY)
    expect(control, RIGHT, timeout_s)
    insist(wait_for_mark(lane, mapped.used, timeout_s, control.is_peer_there), control, timeout_s)


def read_pattern(end: MappedEnd, lane: Lane, timeout_s: float) -> None:
    """The receiver's part; blocks and raises as `write_pattern` does."""
    control, (mapped, *_) = end
    memory = mapped.slot.memory
    expect(control, READY, timeout_s)
    insist(wait_for_mark(lane, mapped.filled, timeout_s, control.is_peer_there), control, timeout_s)
    if not torch.equal(memory, pattern(len(memory), memory.device)):
        control.put(WRONG)
        raise Unfit(f"of {len(memory):,} bytes that {control.peer} has written others are in memory")
    lane.mark_stage(mapped.used)
    control.put(RIGHT)


def _cut(layout: MessageLayout, memory: Tensor, filled: Sequence[Mark], used: Sequence[Mark]) -> list[MappedSlot]:
    stride = _stride(layout)
    parts = (memory[start : start + stride] for start in range(0, len(used) * stride, stride))
    return [MappedSlot(BareSlot(layout, part), *marks) for part, *marks in zip(parts, filled, used, strict=True)]


def _stride(layout: MessageLayout) -> int:
    return -(-payload_bytes(layout) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
