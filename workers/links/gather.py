"""One receiver for the parts of a batch that come from several replicas of the stage before."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from greedypipe.pipeline.parts import WHOLE, Part
from greedypipe.workers.links.encoding import EncodedTensor
from greedypipe.workers.links.interface import PollingReceiver, Received, Receiver
from greedypipe.workers.links.messages import Message

CPU = torch.device("cpu")


class JoinedReceiver(Receiver):
    """Joins the parts of each batch, in the order of the replicas; of equal messages without rows, it returns one.

    Every replica sends its part of every message, in the same order, so that parts belong to one batch. The joined
    message is a copy in its own memory, so the parts' slots are free again at once. Where parts are lent, it is put
    together by its reader instead, who alone may use them, and holds their slots until then.

    Args:
        parts: Receivers from the replicas, in their order.
        own: What of every batch this process has.
    """

    def __init__(self, parts: Sequence[Receiver], own: Part = WHOLE) -> None:
        self._parts = parts
        self._own = own
        self.lends = any(part.lends for part in parts)
        self._put_together = self._when_read if self.lends else self._now
        self._arrived: list[Received] = []
        self.slot_bytes = sum(part.slot_bytes for part in parts)

    def receive(self) -> Received:
        while len(self._arrived) < len(self._parts):
            self._arrived.append(self._parts[len(self._arrived)].receive())
        return self._join()

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _join(self) -> Received:
        first, *others = (received.message for received in self._arrived)
        for part in others:
            if (part.kind, part.batch_id) != (first.kind, first.batch_id):
                raise ValueError(
                    f"replicas have fallen out of step: {part.kind.name} {part.batch_id} arrived with "
                    f"{first.kind.name} {first.batch_id}"
                )
        arrived, self._arrived = self._arrived, []
        return self._put_together(arrived)

    def _now(self, arrived: Sequence[Received]) -> Received:
        # Encoded tensors are decoded here, on the CPU: each part has its own scales.
        parts = [received.message.to(CPU) for received in arrived]
        first = parts[0]
        tensors = {name: torch.cat([part.tensors[name] for part in parts]) for name in first.tensors}
        rows = sum(part.rows for part in parts)
        whole = first.batch_rows if rows < first.batch_rows else 0
        for received in arrived:
            received.release()
        return Received(Message(first.kind, first.batch_id, first.step, tensors, whole), lambda: None)

    def _when_read(self, arrived: Sequence[Received]) -> Received:
        first = arrived[0].message
        tensors = {
            name: EncodedTensor(tuple(received.message.tensors[name] for received in arrived), _concatenated)
            for name in first.tensors
        }
        whole = 0 if self._own == WHOLE else first.batch_rows
        return Received(
            Message(first.kind, first.batch_id, first.step, tensors, whole),
            release=lambda: _each(received.release for received in arrived),
            lend=lambda: _each(received.lend for received in arrived),
            give_back=lambda: _each(received.give_back for received in arrived),
        )


class PolledJoinedReceiver(JoinedReceiver, PollingReceiver):
    """A joined receiver over links that can all be polled."""

    def __init__(self, parts: Sequence[PollingReceiver], own: Part = WHOLE) -> None:
        super().__init__(parts, own)
        self._polled = parts

    def poll(self) -> Received | None:
        while len(self._arrived) < len(self._polled):
            if (received := self._polled[len(self._arrived)].poll()) is None:
                return None
            self._arrived.append(received)
        return self._join()


def join(parts: Sequence[Receiver], own: Part = WHOLE) -> Receiver:
    """One receiver for all parts: the part itself if there is only one; it can be polled if all parts can."""
    if len(parts) == 1:
        return parts[0]
    polled = [part for part in parts if isinstance(part, PollingReceiver)]
    return PolledJoinedReceiver(polled, own) if len(polled) == len(parts) else JoinedReceiver(parts, own)


def _concatenated(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def _each(calls: Iterable[Callable[[], None] | None]) -> None:
    for call in calls:
        if call:
            call()
