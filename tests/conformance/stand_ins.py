"""What plays the part of a GPU and of NCCL where links are tested without: the classes under test are the product's own."""

import contextlib
import os
import queue
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._C._distributed_c10d import ErrorType

from greedypipe.workers.links import connect, device_link
from greedypipe.workers.links.control import ControlSocket
from greedypipe.workers.links.cuda_lane import new_memory
from greedypipe.workers.links.gloo_wire import GlooWire, new_buffer
from greedypipe.workers.links.lane import Lane
from greedypipe.workers.links.mapped import MappedReceiver, MappedSender, MappedSlot
from greedypipe.workers.links.meeting import listen_on_this_host
from greedypipe.workers.links.messages import MessageLayout
from greedypipe.workers.links.nccl import ENVIRONMENT, NcclWire
from greedypipe.workers.links.paced_receiver import PacedReceiver
from greedypipe.workers.links.paced_sender import PacedSender
from greedypipe.workers.links.pacing import Track, Wire
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.place import Place
from greedypipe.workers.links.slots import BareSlot, payload_bytes

CPU = torch.device("cpu")


class FakeWork:
    """The bytes move when it is waited for."""

    def __init__(self, move: Callable[[], None]) -> None:
        self._move = move

    def wait(self) -> bool:
        try:
            self._move()
        except OSError as error:
            raise ConnectionError(f"lost the wire: {error}") from None
        return True


class FakeGroup:
    """A group of two ranks with the calls of ProcessGroupNCCL that a link makes, over a socket."""

    error = ErrorType.SUCCESS

    def __init__(self, connection: socket.socket, rank: int, damages: bool = False) -> None:
        self._socket, self._rank, self._damages = connection, rank, damages

    def send(self, tensors: list[Tensor], peer: int, tag: int) -> FakeWork:
        (memory,), _ = tensors, self._check(peer, tag)
        return FakeWork(lambda: self._socket.sendall(memory.numpy()))

    def recv(self, tensors: list[Tensor], peer: int, tag: int) -> FakeWork:
        (memory,), _ = tensors, self._check(peer, tag)

        def move() -> None:
            view = memoryview(memory.numpy()).cast("B")
            while view:
                if not (count := self._socket.recv_into(view)):
                    raise ConnectionError("it is closed")
                view = view[count:]
            if self._damages:
                memory[-1] += 1

        return FakeWork(move)

    def get_error(self) -> ErrorType:
        return self.error

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _check(self, peer: int, tag: int) -> None:
        assert (peer, tag) == (1 - self._rank, 0)


def make_fake_group(store: Any, rank: int, device: torch.device, name: str, patience: Patience) -> FakeGroup:
    """Takes the place of `make_nccl_group`, between threads or processes of one host."""
    if rank:
        with listen_on_this_host() as listener:
            store.set("wire", listener.getsockname())
            return FakeGroup(patience.call(listener.accept)[0], rank)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(patience.read(store, "wire"))
    return FakeGroup(connection, rank)


def _make_group_of_a_stage(*arguments: Any) -> FakeGroup:
    assert ENVIRONMENT.keys() <= os.environ.keys(), "torch has not been told to end no process"
    return make_fake_group(*arguments)


def stand_in(transport: str) -> None:
    """From now on links of this process use a transport of GPUs between its stages on the CPU."""
    device_link.make_nccl_group = _make_group_of_a_stage
    device_link.CudaPassing = FakePassing  # type: ignore[assignment, misc]
    connect.choose = lambda *rest: transport
    here = Place("here", "cuda", "GPU-a", "2.28.9")
    connect.Place.of = lambda device: here  # type: ignore[method-assign]


class FakePassing:
    """Memory passed on as a file that both ends map. Takes the place of `CudaPassing`, on one host."""

    def __init__(self, device: torch.device) -> None:
        pass

    def new_mark(self) -> None:
        return None

    def give(self, memory: Tensor) -> str:
        descriptor, name = tempfile.mkstemp()
        os.truncate(descriptor, len(memory))
        os.close(descriptor)
        memory.set_(torch.UntypedStorage.from_file(name, True, len(memory)))
        return name

    def take(self, text: str) -> Tensor:
        size = os.path.getsize(text)
        memory = torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage.from_file(text, True, size))
        os.unlink(text)
        return memory

    def give_mark(self, mark: None) -> str:
        return ""

    def take_mark(self, text: str) -> None:
        return None


@dataclass
class Offer:
    """What a sender's half of a transfer has to give."""

    memory: Tensor
    ready: Any
    copied: Any
    is_taken: threading.Event = field(default_factory=threading.Event)


class LocalWires:
    """Both ends in one process: the receiver's half copies, on its own lane, with NCCL's order and without NCCL."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._offers: queue.Queue[Offer | None] = queue.Queue()
        self._gone = threading.Event()
        self.sending, self.receiving = LocalHalf(self._send, self.abort), LocalHalf(self._receive, self.abort)

    def _send(self, memory: Tensor) -> None:
        ours, theirs = self._lanes
        offer = Offer(memory, ours.new_mark(), theirs.new_mark())
        ours.mark_lane(offer.ready)
        self._offers.put(offer)
        while not offer.is_taken.wait(0.01):
            if self._gone.is_set():
                raise ConnectionError("lost the wire")
        ours.hold_lane(offer.copied)

    def _receive(self, memory: Tensor) -> None:
        if (offer := self._offers.get(timeout=5)) is None:
            raise ConnectionError("lost the wire")
        self._lanes[1].hold_lane(offer.ready)
        memory.copy_(offer.memory, non_blocking=True)  # in the link's thread: on its lane
        self._lanes[1].mark_lane(offer.copied)
        offer.is_taken.set()

    def abort(self) -> None:
        self._gone.set()
        self._offers.put(None)


class LocalHalf:
    """One end of it."""

    meets_on_device = True

    def __init__(self, move: Callable[[Tensor], None], abort: Callable[[], None]) -> None:
        self.send = self.receive = move
        self.abort = abort

    def check(self) -> None:
        pass


class FakeGloo:
    """`gloo.Wire` over a socket."""

    def __init__(self, connection: socket.socket, rank: int) -> None:
        self._group, self._peer = FakeGroup(connection, rank), 1 - rank

    def send(self, memory: Tensor) -> None:
        self._group.send([memory], self._peer, 0).wait()

    def receive(self, memory: Tensor) -> None:
        self._group.recv([memory], self._peer, 0).wait()

    def close(self) -> None:
        self._group.abort()


def gloo_wires(layout: MessageLayout, lanes: Sequence[Lane], wires: Sequence[Any] | None = None) -> list[GlooWire]:
    """gloo's wires beside the stage's work, over sockets or those given."""
    wires = wires or [FakeGloo(end, rank) for rank, end in enumerate(socket.socketpair())]
    size = payload_bytes(layout)
    return [GlooWire(wire, lane, new_buffer(size, CPU), 5.0) for wire, lane in zip(wires, lanes, strict=True)]


def nccl_wires() -> tuple[NcclWire, NcclWire]:
    """NCCL's wire over a fake group."""
    here, there = socket.socketpair()
    return NcclWire(FakeGroup(here, 0), 0, "stage 1"), NcclWire(FakeGroup(there, 1), 1, "stage 0")


def paced_ends(
    layout: MessageLayout,
    slots: int,
    timeout_s: float,
    lanes: Sequence[Lane],
    wires: Sequence[Wire],
    device: torch.device = CPU,
) -> tuple[PacedSender, PacedReceiver]:
    """Both ends of a paced link between two threads."""
    here, there = socket.socketpair()
    made = [[BareSlot(layout, new_memory(payload_bytes(layout), device)) for _ in range(slots)] for _ in range(2)]
    receiver = PacedReceiver(Track(ControlSocket(there, "stage 0"), wires[1], lanes[1]), made[1], timeout_s=timeout_s)
    track = Track(ControlSocket(here, "stage 1"), wires[0], lanes[0])
    return PacedSender("nccl", track, made[0], layout, timeout_s=timeout_s), receiver


def mapped_ends(
    layout: MessageLayout, slots: int, timeout_s: float, lanes: Sequence[Lane], device: torch.device = CPU
) -> tuple[MappedSender, MappedReceiver]:
    """Both ends of a mapped link between two threads."""
    here, there = socket.socketpair()
    shared = [
        MappedSlot(BareSlot(layout, new_memory(payload_bytes(layout), device)), lanes[0].new_mark(), lanes[1].new_mark())
        for _ in range(slots)
    ]
    return (
        MappedSender("ipc", ControlSocket(here, "stage 1"), lanes[0], shared, layout, timeout_s=timeout_s),
        MappedReceiver(ControlSocket(there, "stage 0"), lanes[1], shared, timeout_s=timeout_s),
    )
