"""The links under test: how each is built and how either of its ends is lost. Another one joins by a line in `LINKS`."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.distributed import HashStore, PrefixStore

from greedypipe.pipeline.batch import TensorSpec
from greedypipe.workers.links.gloo import RECEIVER, SENDER, ProcessGroupReceiver, ProcessGroupSender, Wire, connect_gloo
from greedypipe.workers.links.inprocess import make_inprocess_link
from greedypipe.workers.links.interface import Received, Receiver, Sender
from greedypipe.workers.links.messages import Kind, Message, MessageLayout
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.shared_memory import attach_shared_memory, serve_shared_memory

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

    `room` counts the messages that `send` takes while the receiver takes what it can and releases nothing.
    """

    sender: Sender | None
    receiver: Receiver | None
    room: int
    lose_sender: Callable[["Link"], None]
    lose_receiver: Callable[["Link"], None]

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
        ProcessGroupSender(sending, LAYOUT, slots=slots, timeout_s=timeout_s, peer="stage 1"),
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


LINKS: dict[str, Connect] = {
    "inprocess": connect_inprocess,
    "gloo": connect_gloo_in_threads,
    "shm": connect_shared_memory,
}
