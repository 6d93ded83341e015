"""A link between two processes of one host: slots in shared memory, written once by the sender and read in place.

The receiver creates an anonymous file in memory (memfd) that holds the slots, and passes its descriptor to the sender
over a Unix socket, once both have proved that they belong to one run (workers.links.proof). So the memory has no name that
could be left behind: it is freed with the last process that has it open, however that process ends, and does not count
against the size of /dev/shm. After that the socket carries only slot numbers: downstream those that hold a message, upstream
those that are free again.
"""

import mmap
import os
import socket
import struct
import time
from typing import NamedTuple

import torch
from torch.distributed import PrefixStore, Store

from greedypipe.workers.links.doorbell import NumberSocket
from greedypipe.workers.links.interface import LinkStats, PollingReceiver, Received, Sender
from greedypipe.workers.links.meeting import accept, check_layout, connecting, listen_on_this_host
from greedypipe.workers.links.messages import Message, MessageLayout
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.proof import SECRET_BYTES, Proof, check_secret, check_user
from greedypipe.workers.links.slots import Slot
from greedypipe.workers.memory import available_bytes

PAGE_BYTES = mmap.PAGESIZE
GREETING = struct.Struct("=qi")
"""Layout code and number of slots."""
MANY = 1024
TAKEN_POLL_S = 0.002
"""Interval at which a closing sender checks whether its last message has been taken: the socket has no event for that."""


class Ends(NamedTuple):
    """One end of a connected link: the socket, and the slots that both ends see."""

    socket: NumberSocket
    slots: list[Slot]


def serve_shared_memory(
    store: Store, link: str, layout: MessageLayout, *, slots: int, patience: Patience
) -> "SharedMemoryReceiver":
    """Creates the slots of a link named `link`; blocks until the sender has attached to them, and returns the receiver.

    Raises:
        ConnectionError: The sender did not connect in time; GivenUp if waiting became pointless.
        ValueError: The sender's messages have another layout.
    """
    peer, timeout_s = patience.peer, patience.timeout_s
    store = PrefixStore(link, store)
    proof = Proof.offer(store)
    with listen_on_this_host() as listener:
        store.set("address", listener.getsockname())
        connection = accept(listener, proof, patience)
    file = _new_memory(link, slots, layout)
    try:
        ours = GREETING.pack(layout.code, slots)
        with connecting(connection, patience):
            socket.send_fds(connection, [proof.receiver + ours], [file])
            theirs, _ = GREETING.unpack(connection.recv(GREETING.size, socket.MSG_WAITALL))
        check_layout(theirs, layout, peer)
        return SharedMemoryReceiver(
            Ends(NumberSocket(connection, peer), _map_slots(file, slots, layout)), layout, timeout_s=timeout_s, peer=peer
        )
    finally:
        os.close(file)


def attach_shared_memory(store: Store, link: str, layout: MessageLayout, *, patience: Patience) -> "SharedMemorySender":
    """Attaches to the slots of a link named `link`: the counterpart of `serve_shared_memory`. Blocks and raises as it
    does."""
    peer, timeout_s = patience.peer, patience.timeout_s
    store = PrefixStore(link, store)
    address = patience.read(store, "address").decode()
    proof = Proof.find(store, patience)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with connecting(connection, patience):
        connection.connect(address)
        check_user(connection, peer)
        connection.sendall(proof.sender)
        packet, files, _, _ = socket.recv_fds(connection, SECRET_BYTES + GREETING.size, 1)
        check_secret(packet[:SECRET_BYTES], proof.receiver, peer)
        theirs, slots = GREETING.unpack(packet[SECRET_BYTES:])
        connection.sendall(GREETING.pack(layout.code, slots))
    try:
        check_layout(theirs, layout, peer)
        ends = Ends(NumberSocket(connection, peer), _map_slots(files[0], slots, layout))
    finally:
        os.close(files[0])
    return SharedMemorySender(ends, layout, timeout_s=timeout_s, peer=peer)


class SharedMemorySender(Sender):
    """Copies each message into a free slot and sends the slot's number. No thread."""

    def __init__(self, ends: Ends, layout: MessageLayout, *, timeout_s: float, peer: str) -> None:
        self._socket, self._slots = ends
        self._layout = layout
        self._timeout_s = timeout_s
        self._peer = peer
        # The slot that was released last is used first: it is most likely still in cache.
        self._free = list(range(len(ends.slots)))
        self._lost: ConnectionError | None = None
        self._closed = False
        # The slots belong to the receiver, which reports their memory.
        self._stats = LinkStats("shm")

    @property
    def stats(self) -> LinkStats:
        return self._stats

    def send(self, message: Message) -> None:
        started = time.perf_counter()
        self._layout.check(message)
        try:
            waited_s = self._wait_for_room(message)
            number = self._free.pop()
            used = self._slots[number].pack(message)
            self._socket.put(number, self._timeout_s)
        except ConnectionError as error:
            self._lost = error
            raise
        self._stats.count(len(used), time.perf_counter() - started - waited_s, waited_s)

    def close(self) -> None:
        if self._lost:
            raise self._lost
        if self._closed:
            return
        deadline = time.monotonic() + self._timeout_s
        while not self._socket.all_taken():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {self._timeout_s:g} s for {self._peer} to take the last message")
            time.sleep(TAKEN_POLL_S)
        self._closed = True
        self._socket.close()

    def abandon(self) -> None:
        self._closed = True
        self._socket.close()

    def _wait_for_room(self, message: Message) -> float:
        """Waits until there is a free slot; returns the seconds waited."""
        self._free += self._socket.take(MANY)
        if self._free:
            return 0.0
        started = time.perf_counter()
        if not self._socket.wait(self._timeout_s):
            raise TimeoutError(f"waited {self._timeout_s:g} s for room at {self._peer}, batch_id {message.batch_id}")
        self._free += self._socket.take(MANY)
        return time.perf_counter() - started


class SharedMemoryReceiver(PollingReceiver):
    """Reads messages in place, in the slots that the sender has filled."""

    def __init__(self, ends: Ends, layout: MessageLayout, *, timeout_s: float, peer: str) -> None:
        self._socket, self._slots = ends
        self._timeout_s = timeout_s
        self._peer = peer
        self.slot_bytes = len(ends.slots) * _stride(layout)

    def receive(self) -> Received:
        while (received := self.poll()) is None:
            if not self._socket.wait(self._timeout_s):
                raise TimeoutError(f"waited {self._timeout_s:g} s for a message of {self._peer}")
        return received

    def poll(self) -> Received | None:
        numbers = self._socket.take(1)
        if not numbers:
            return None
        return Received(self._slots[numbers[0]].unpack(), lambda: self._socket.put_later(numbers[0]))

    def close(self) -> None:
        self._socket.close()


def slots_bytes(layout: MessageLayout, slots: int) -> int:
    """Memory of so many slots."""
    return slots * _stride(layout)


def _new_memory(link: str, slots: int, layout: MessageLayout) -> int:
    """An anonymous file in memory for the slots; returns its descriptor.

    Raises:
        MemoryError: There is not as much memory; asked before, since the kernel would end a process that uses what it does
            not have.
    """
    needed, available = slots_bytes(layout, slots), available_bytes()
    what = f"{link}: {slots} slots of {_stride(layout):,} bytes in shared memory"
    if available is not None and needed > available:
        raise MemoryError(f"{what}: got {available:,} bytes available on this host, needed {needed:,}")
    try:
        file = os.memfd_create(link)
    except OSError as error:
        raise MemoryError(f"{what}: {error.strerror}") from None
    try:
        os.ftruncate(file, needed)
    except OSError as error:
        os.close(file)
        raise MemoryError(f"{what}: {error.strerror}") from None
    return file


def _map_slots(file: int, slots: int, layout: MessageLayout) -> list[Slot]:
    """Maps and touches every slot of the memory file, so that the first messages cause no page faults."""
    stride = _stride(layout)
    mapped = mmap.mmap(file, slots * stride, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    memory = torch.frombuffer(mapped, dtype=torch.uint8)
    return [Slot(layout, memory[start : start + stride]) for start in range(0, slots * stride, stride)]


def _stride(layout: MessageLayout) -> int:
    return -(-layout.slot_bytes // PAGE_BYTES) * PAGE_BYTES
