"""A link over torch.distributed point-to-point: gloo between hosts' memories.

A link is a process group of two ranks of its own, 0 the sender and 1 the receiver, so that no operation of one link
ever waits for another. gloo's behaviour decides the rest: a send completes only when the peer has posted its receive,
and reads the tensor until then (so sent bytes stay in their slot until `wait` returns); `Work.is_completed` never turns
true before `wait` (so a thread blocks in `wait`); and an operation that times out closes the pair for good (so a
deadline is fatal, never a poll).
"""

import queue
import threading
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed import PrefixStore, ProcessGroup, Store

from greedypipe.workers.links.gloo_group import make_gloo_group
from greedypipe.workers.links.interface import Received, Receiver
from greedypipe.workers.links.messages import MessageLayout
from greedypipe.workers.links.patience import GivenUp, Patience
from greedypipe.workers.links.proof import SECRET_BYTES, Proof, check_secret
from greedypipe.workers.links.slot_sender import PackingSender
from greedypipe.workers.links.slots import LOOK_S, Slot, SlotPool, new_slot

SENDER, RECEIVER = 0, 1


class Wire:
    """Moves bytes between the two ends; blocking, one thread per end.

    Dropping the group closes the connection, but must not happen while an operation waits: gloo cannot be interrupted.
    So an end that is closed while its thread waits is closed when that wait ends. It ends as soon as the peer closes its
    own end, and at most one of two ends waits.
    """

    def __init__(self, group: ProcessGroup, own_rank: int, peer: str) -> None:
        self._group: ProcessGroup | None = group
        self._peer_rank = 1 - own_rank
        self._peer = peer
        self._in_use = threading.Lock()
        self._is_closed = False

    def send(self, memory: Tensor) -> None:
        """Returns when the peer has taken the bytes."""
        self._attempt(lambda group: group.send([memory], self._peer_rank, 0).wait())

    def receive(self, memory: Tensor) -> None:
        """Returns when a message has arrived; it may be shorter than `memory`."""
        self._attempt(lambda group: group.recv([memory], self._peer_rank, 0).wait())

    def close(self) -> None:
        """Closes this end, which the peer notices, now or when the current operation has ended. Does not block; idempotent;
        any thread may call it."""
        self._is_closed = True
        self._let_go()

    def _attempt(self, operation: Callable[[ProcessGroup], object]) -> None:
        try:
            with self._in_use:
                if not self._group:
                    raise ConnectionError(f"the link to {self._peer} was closed here")
                operation(self._group)
        except RuntimeError as error:
            if "Timed out" in str(error):
                raise TimeoutError(f"waited too long for {self._peer}: {_first_line(error)}") from error
            raise ConnectionError(f"lost {self._peer}: {_first_line(error)}") from error
        finally:
            if self._is_closed:
                self._let_go()

    def _let_go(self) -> None:
        # The thread that holds the lock checks `_is_closed` after releasing it.
        if self._in_use.acquire(blocking=False):
            self._group = None
            self._in_use.release()


def connect_gloo(
    store: Store, link: str, own_rank: int, layout: MessageLayout, *, patience: Patience, deadline_s: float
) -> Wire:
    """Builds one end of a link named `link`; returns when the peer has built the other.

    The two compare their layouts first: gloo accepts a short message silently and aborts the process on a long one.
    Then each proves to the other that it belongs to the run (workers.links.proof).

    Args:
        deadline_s: Deadline of every later operation, in seconds.

    Raises:
        ConnectionError: The peer did not connect in time; GivenUp if waiting became pointless.
        ValueError: The peer's messages have another layout.
    """
    peer = patience.peer
    store = PrefixStore(link, store)
    proof = Proof.offer(store) if own_rank == RECEIVER else None
    store.set(f"layout{own_rank}", f"{layout.code}")
    theirs = patience.read(store, f"layout{1 - own_rank}").decode(errors="replace")
    if theirs != f"{layout.code}":
        ours = f"at most {layout.max_rows} rows of {layout.specs}"
        raise ValueError(f"{peer} has another message layout (code {theirs[:20]}, here {layout.code}): {ours}")
    # Only the wire may hold the group: that is how it closes it.
    wire = Wire(make_gloo_group(store, own_rank, 2, patience=patience, deadline_s=deadline_s), own_rank, peer)
    proof = proof or Proof.find(store, patience)
    try:
        patience.call(lambda: _prove(wire, own_rank, proof, peer))
    except BaseException:
        wire.close()
        raise
    return wire


def _prove(wire: Wire, own_rank: int, proof: Proof, peer: str) -> None:
    shown = torch.zeros(SECRET_BYTES, dtype=torch.uint8)
    if own_rank == SENDER:
        wire.send(_as_tensor(proof.sender))
        wire.receive(shown)
        check_secret(_as_bytes(shown), proof.receiver, peer)
    else:
        wire.receive(shown)
        check_secret(_as_bytes(shown), proof.sender, peer)
        wire.send(_as_tensor(proof.receiver))


def _as_tensor(secret: bytes) -> Tensor:
    return torch.frombuffer(bytearray(secret), dtype=torch.uint8)


def _as_bytes(secret: Tensor) -> bytes:
    return secret.numpy().tobytes()


class ProcessGroupSender(PackingSender[Slot]):
    """Copies messages into slots; its own thread passes them to the wire in order.

    Args:
        patience: Names the receiver; its deadline is that of every wait.
        pinned: Whether slots are page-locked: for a stage on CUDA, whose device is then set.
    """

    def __init__(self, wire: Wire, layout: MessageLayout, *, slots: int, patience: Patience, pinned: bool = False) -> None:
        pool = SlotPool(slots, lambda: new_slot(layout, pinned=pinned))
        timeout_s, peer = patience.timeout_s, patience.peer
        super().__init__("gloo", layout, pool, timeout_s=timeout_s, peer=peer, is_over=patience.is_over)
        self.stats.slot_bytes = slots * layout.slot_bytes
        self._wire = wire
        self._outgoing: queue.SimpleQueue[tuple[Slot, Tensor] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._transmit, name=f"send to {peer}", daemon=True)
        self._thread.start()

    def _pass_on(self, slot: Slot, used: Tensor) -> None:
        self._outgoing.put((slot, used))

    def abandon(self) -> None:
        super().abandon()
        self._outgoing.put(None)
        self._wire.close()

    def close(self) -> None:
        self._outgoing.put(None)
        deadline = time.monotonic() + self._timeout_s
        while True:
            self._thread.join(LOOK_S)
            if not self._thread.is_alive():
                break
            if self._is_over():
                self.abandon()
                raise GivenUp(f"{self._peer} has been started again")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {self._timeout_s:g} s for {self._peer} to take the last message")
        if self._error:
            raise self._error

    def _transmit(self) -> None:
        try:
            while (outgoing := self._outgoing.get()) is not None:
                slot, used = outgoing
                self._wire.send(used)
                self._pool.release(slot)
        except BaseException as error:  # kept: the next call of send or close raises it
            self._error = error
            self._pool.close(error)
        finally:
            self._wire.close()


class ProcessGroupReceiver(Receiver):
    """Receives into slots that it owns.

    Args:
        pinned: Whether slots are page-locked: for a stage on CUDA, whose device is then set.
    """

    def __init__(self, wire: Wire, layout: MessageLayout, *, slots: int, timeout_s: float, pinned: bool = False) -> None:
        self._wire = wire
        self._timeout_s = timeout_s
        self._slots = SlotPool(slots, lambda: new_slot(layout, pinned=pinned))
        self.slot_bytes = slots * layout.slot_bytes

    def receive(self) -> Received:
        try:
            slot = self._slots.acquire(self._timeout_s)
        except TimeoutError:
            raise TimeoutError(f"the reader of this stage has released no slot for {self._timeout_s:g} s") from None
        self._wire.receive(slot.memory)
        return Received(slot.unpack(), lambda: self._slots.release(slot))

    def close(self) -> None:
        self._slots.close(ConnectionError("the link was closed here"))
        self._wire.close()


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
