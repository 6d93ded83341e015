"""Copies of blocks' states that a saver writes while the blocks train on."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from greedypipe.workers.devices.side import Side, wait_until

States = list[dict[str, Any]]


class Copies(Protocol):
    """The copies of one process; each ones' memory is that of those before, so one set is valid at a time."""

    def take(self, states: Sequence[dict[str, Any]]) -> States:
        """Copies of the states behind what the stage has done so far; never waits for the device. Main thread."""
        ...

    def wait(self) -> None:
        """Blocks until the last copies hold what they are copies of. Any thread."""
        ...


class ClonedStates:
    """Copies on the states' own device, made at once."""

    def __init__(self) -> None:
        self._copies: Any = None

    def take(self, states: Sequence[dict[str, Any]]) -> States:
        """See `Copies.take`."""
        self._copies = copied(list(states), self._copies)
        return list(self._copies)

    def wait(self) -> None:
        """They are there."""


class LandedStates:
    """Copies in the host's memory of states on a GPU, made beside the stage's work. On CUDA not yet run.

    The device's memory stays as it is. What the stage does next there waits for the copies, since it changes the states in
    place: on the device, not on the host, and for as long as the bytes take.
    """

    def __init__(self, side: Side) -> None:
        self._side = side
        self._is_up_to_date, self._has_come = side.new_mark(), side.new_mark()
        self._copies: Any = None

    def take(self, states: Sequence[dict[str, Any]]) -> States:
        """See `Copies.take`. The first call allocates the memory, which takes some time."""
        self._side.mark_stage(self._is_up_to_date)
        self._side.hold_lane(self._is_up_to_date)
        self._copies = self._landed(list(states), self._copies)
        self._side.mark_lane(self._has_come)
        self._side.hold_stage(self._has_come)
        return list(self._copies)

    def wait(self) -> None:
        """See `Copies.wait`. Raises TimeoutError where the device has hung, RuntimeError where it has failed."""
        wait_until(self._side, self._has_come, "copy a checkpoint")

    def _landed(self, value: Any, before: Any) -> Any:
        if isinstance(value, Tensor):
            value = value.detach()
            memory = before if _fits(value, before) else self._side.host_memory_like(value)
            self._side.run_aside(lambda: memory.copy_(value, non_blocking=True))
            return memory
        if isinstance(value, dict):
            known = before if isinstance(before, dict) else {}
            return {key: self._landed(entry, known.get(key)) for key, entry in value.items()}
        if isinstance(value, list):
            known_entries = before if isinstance(before, list) and len(before) == len(value) else [None] * len(value)
            return [self._landed(entry, known) for entry, known in zip(value, known_entries, strict=True)]
        return value


def copied(value: Any, into: Any) -> Any:
    """Copies nested dictionaries and lists of tensors, into the memory of `into`, an earlier copy, wherever that has a
    tensor of the same shape and dtype in the same place.

    Fresh memory would come from what a step has just freed (workers.memory), and the next step would have to map new
    pages instead.
    """
    if isinstance(value, Tensor):
        return into.copy_(value) if _fits(value, into) else value.detach().clone()
    if isinstance(value, dict):
        known = into if isinstance(into, dict) else {}
        return {key: copied(entry, known.get(key)) for key, entry in value.items()}
    if isinstance(value, list):
        earlier = into if isinstance(into, list) and len(into) == len(value) else [None] * len(value)
        return [copied(entry, known) for entry, known in zip(value, earlier, strict=True)]
    return value


def _fits(value: Tensor, memory: Any) -> bool:
    return isinstance(memory, Tensor) and (memory.shape, memory.dtype) == (value.shape, value.dtype)
