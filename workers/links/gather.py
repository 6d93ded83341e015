"""One receiver for the parts of a batch that come from several replicas of the stage before."""

from collections.abc import Sequence

import torch

from greedypipe.workers.links.interface import PollingReceiver, Received, Receiver
from greedypipe.workers.links.messages import Message

CPU = torch.device("cpu")


class JoinedReceiver(Receiver):
    """Joins the parts of each batch, in the order of the replicas; of equal messages without rows, it returns one.

    Every replica sends its part of every message, in the same order, so that parts belong to one batch. The joined
    message is a copy in its own memory, so the parts' slots are free again at once.

    Args:
        parts: Receivers from the replicas, in their order.
    """

    def __init__(self, parts: Sequence[Receiver]) -> None:
        self._parts = parts
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
        # Encoded tensors are decoded here, on the CPU: each part has its own scales.
        parts = [received.message.to(CPU) for received in self._arrived]
        first = parts[0]
        for part in parts[1:]:
            if (part.kind, part.batch_id) != (first.kind, first.batch_id):
                raise ValueError(
                    f"replicas have fallen out of step: {part.kind.name} {part.batch_id} arrived with "
                    f"{first.kind.name} {first.batch_id}"
                )
        tensors = {name: torch.cat([part.tensors[name] for part in parts]) for name in first.tensors}
        rows = sum(part.rows for part in parts)
        whole = first.batch_rows if rows < first.batch_rows else 0
        for received in self._arrived:
            received.release()
        self._arrived = []
        return Received(Message(first.kind, first.batch_id, first.step, tensors, whole), lambda: None)


class PolledJoinedReceiver(JoinedReceiver, PollingReceiver):
    """A joined receiver over links that can all be polled."""

    def __init__(self, parts: Sequence[PollingReceiver]) -> None:
        super().__init__(parts)
        self._polled = parts

    def poll(self) -> Received | None:
        while len(self._arrived) < len(self._polled):
            if (received := self._polled[len(self._arrived)].poll()) is None:
                return None
            self._arrived.append(received)
        return self._join()


def join(parts: Sequence[Receiver]) -> Receiver:
    """One receiver for all parts: the part itself if there is only one; it can be polled if all parts can."""
    if len(parts) == 1:
        return parts[0]
    polled = [part for part in parts if isinstance(part, PollingReceiver)]
    return PolledJoinedReceiver(polled) if len(polled) == len(parts) else JoinedReceiver(parts)
