"""The links under test: how each is built and how either of its ends is lost. Another one joins by a line in `LINKS`."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.distributed import HashStore, PrefixStore

from greedypipe.pipeline.batch import TensorSpec
from greedypipe.workers.links.cuda_lane import CudaLane
from greedypipe.workers.links.gloo import RECEIVER, SENDER, ProcessGroupReceiver, ProcessGroupSender, Wire, connect_gloo
from greedypipe.workers.links.inprocess import make_inprocess_link
from greedypipe.workers.links.interface import Received, Receiver, Sender
from greedypipe.workers.links.lane import HostLane, Lane, wait_for_mark
from greedypipe.workers.links.messages import Kind, Message, MessageLayout
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.shared_memory import attach_shared_memory, serve_shared_memory
from tests.conformance.simulated import SimulatedDevice, SimulatedLane, SimulatedWires
from tests.conformance.stand_ins import CPU, LocalWires, mapped_ends, nccl_wires, paced_ends
from tests.conformance.stand_ins import gloo_wires as beside_the_stage

CUDA = torch.device("cuda", 0)
TIMEOUT_S = 10.0
SHORT_S = 0.3
MAX_ROWS = 6
LABELS = TensorSpec("labels", (), torch.int64)
ACTIVATION = TensorSpec("activation", (4, 3, 2), torch.float32, channels_last=True)
LAYOUT = MessageLayout(
    MAX_ROWS,
    {
        Kind.TRAIN: (LABELS, ACTIVATION, TensorSpec("image", (3, 5, 5), torch.bfloat16)),
        Kind.EVALUATE: (LABELS, ACTIVATION, TensorSpec("ensemble", (10,), torch.float64)),
    },
)


@dataclass
class Link:
    """Both ends of a link from "stage 0" to "stage 1", and how either end is lost as if its process had ended.

    `room` counts the messages that `send` takes while the receiver takes what it can and releases nothing, and
    `room_unread` those that it takes while nobody reads.
    """

    sender: Sender | None
    receiver: Receiver | None
    room: int
    lose_sender: Callable[["Link"], None]
    lose_receiver: Callable[["Link"], None]
    room_unread: int = 2

    def send(self, message: Message) -> None:
        assert self.sender
        self.sender.send(message)

    def receive(self) -> Received:
        assert self.receiver
        return self.receiver.receive()

    def close_sender(self) -> None:
        assert self.sender
        self.sender.close()


class Connect(Protocol):
    """Builds a link whose two ends have `slots` slots and give up after `timeout_s`."""

    def __call__(self, slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link: ...


def connect_inprocess(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    sender, receiver = make_inprocess_link(LAYOUT, slots=slots, timeout_s=timeout_s, sender="stage 0", receiver="stage 1")
    return Link(sender, receiver, slots, lambda link: sender.close(), lambda link: receiver.close())


def connect_gloo_in_threads(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    # The sender's wire waits longer than its slots: the error that names the message is to come first.
    sending, receiving = gloo_wires(timeouts_s=(2 * timeout_s, timeout_s))
    return Link(
        ProcessGroupSender(sending, LAYOUT, slots=slots, patience=Patience("stage 1", timeout_s)),
        ProcessGroupReceiver(receiving, LAYOUT, slots=slots, timeout_s=timeout_s),
        2 * slots,
        Link.close_sender,
        lambda link: link.receiver.close(),
    )


def gloo_wires(
    layouts: tuple[MessageLayout, MessageLayout] = (LAYOUT, LAYOUT), timeouts_s: tuple[float, float] = (TIMEOUT_S, TIMEOUT_S)
) -> list[Wire]:
    store = PrefixStore("attempt0", HashStore())

    def build(rank: int) -> Wire:
        patience = Patience(f"stage {1 - rank}", timeouts_s[rank])
        return connect_gloo(store, "link0", rank, layouts[rank], patience=patience, deadline_s=timeouts_s[rank])

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(build, (SENDER, RECEIVER)))


def connect_shared_memory(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    store = HashStore()
    with ThreadPoolExecutor(1) as thread:
        receiving = thread.submit(
            serve_shared_memory, store, "link0", LAYOUT, slots=slots, patience=Patience("stage 0", timeout_s)
        )
        sender = attach_shared_memory(store, "link0", LAYOUT, patience=Patience("stage 1", timeout_s))
    receiver = receiving.result()
    return Link(sender, receiver, slots, lambda link: sender.close(), lambda link: receiver.close())


class Settled(Receiver):
    """For tests, which read on the host: gives a message when the device has done what stands before its reading."""

    def __init__(self, receiver: Receiver, lane: Lane) -> None:
        self._receiver, self._lane = receiver, lane

    def receive(self) -> Received:
        message, release, lend, give_back = self._receiver.receive()
        assert lend and give_back
        lend()
        here = self._lane.new_mark()
        self._lane.mark_stage(here)
        assert wait_for_mark(self._lane, here, TIMEOUT_S, lambda: True)

        def done() -> None:
            give_back()
            release()

        return Received(message.to(CPU), done)

    def close(self) -> None:
        self._receiver.close()


def paced(sender: Sender, receiver: Receiver, slots: int) -> Link:
    lose_receiver: Callable[[Link], None] = lambda link: receiver.close()  # noqa: E731
    return Link(sender, receiver, 2 * slots, Link.close_sender, lose_receiver, 2 * slots)


def mapped(sender: Sender, receiver: Receiver, slots: int) -> Link:
    return Link(sender, receiver, slots, lambda link: sender.close(), lambda link: receiver.close(), slots)


def connect_nccl(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    return paced(*paced_ends(LAYOUT, slots, timeout_s, (HostLane(), HostLane()), nccl_wires()), slots)


def connect_gloo_on_lanes(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    lanes = HostLane(), HostLane()
    wires = beside_the_stage(LAYOUT, lanes, gloo_wires())
    return paced(*paced_ends(LAYOUT, slots, timeout_s, lanes, wires), slots)


def connect_ipc(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    return mapped(*mapped_ends(LAYOUT, slots, timeout_s, (HostLane(), HostLane())), slots)


SEEDS = itertools.count()


def simulated_lanes() -> tuple[SimulatedLane, SimulatedLane]:
    device = SimulatedDevice(next(SEEDS))
    return SimulatedLane(device, "sender"), SimulatedLane(device, "receiver")


def connect_simulated_nccl(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    lanes = simulated_lanes()
    wires = SimulatedWires(lanes[0].device, lanes)
    sender, receiver = paced_ends(LAYOUT, slots, timeout_s, lanes, wires.halves)
    return paced(sender, Settled(receiver, lanes[1]), slots)


def connect_simulated_ipc(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    lanes = simulated_lanes()
    sender, receiver = mapped_ends(LAYOUT, slots, timeout_s, lanes)
    return mapped(sender, Settled(receiver, lanes[1]), slots)


def cuda_lanes() -> tuple[CudaLane, CudaLane]:
    torch.cuda.set_device(CUDA)
    return CudaLane(CUDA), CudaLane(CUDA)


def connect_cuda_nccl(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    """All but NCCL itself, which needs two GPUs."""
    lanes = cuda_lanes()
    wires = LocalWires(lanes)
    sender, receiver = paced_ends(LAYOUT, slots, timeout_s, lanes, (wires.sending, wires.receiving), CUDA)
    return paced(sender, Settled(receiver, lanes[1]), slots)


def connect_cuda_ipc(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    """All but the passing of memory to another process."""
    lanes = cuda_lanes()
    sender, receiver = mapped_ends(LAYOUT, slots, timeout_s, lanes, CUDA)
    return mapped(sender, Settled(receiver, lanes[1]), slots)


LINKS: dict[str, Connect] = {
    "inprocess": connect_inprocess,
    "gloo": connect_gloo_in_threads,
    "shm": connect_shared_memory,
    "gloo on lanes": connect_gloo_on_lanes,
    "nccl": connect_nccl,
    "ipc": connect_ipc,
}
SIMULATED_LINKS: dict[str, Connect] = {"nccl on a device": connect_simulated_nccl, "ipc on a device": connect_simulated_ipc}
"""Where the caller may overwrite its tensors on the stage's stream alone."""
CUDA_LINKS: dict[str, Connect] = {"nccl on cuda": connect_cuda_nccl, "ipc on cuda": connect_cuda_ipc}
