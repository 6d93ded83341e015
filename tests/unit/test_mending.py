"""A link whose other end dies and comes back, with both ends in one process."""

import threading
from collections.abc import Iterator

import pytest

from greedypipe.workers.links.inprocess import make_inprocess_link
from greedypipe.workers.links.interface import Receiver, Sender
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.links.reconnecting import MendingReceiver, MendingSender
from tests.conformance.implementations import LAYOUT

MARK = Message(Kind.CHECKPOINT, 1)
END = Message(Kind.END, 9)


def links(number: int) -> tuple[Iterator[Sender], Iterator[Receiver]]:
    senders, receivers = zip(*(make_inprocess_link(LAYOUT, slots=2, timeout_s=2) for _ in range(number)), strict=True)
    return iter(senders), iter(receivers)


def test_what_finds_no_taker_is_dropped_and_counted_until_the_receiver_is_back() -> None:
    senders, receivers = links(2)
    is_back, mended = threading.Event(), threading.Event()

    def connect() -> Sender:
        link = next(senders)
        if first.wait(0):
            is_back.wait(5)
            mended.set()
        return link

    first = threading.Event()
    sender = MendingSender(connect)
    first.set()
    sender.send(MARK)
    lost, back = receivers
    lost.receive().release()
    lost.close()
    for _ in range(3):
        sender.send(MARK)
    assert sender.stats.dropped == 3
    is_back.set()
    assert mended.wait(5)
    sender.send(END)
    assert back.receive().message == END
    assert sender.stats.messages == 2, "figures go on"


def test_the_end_of_the_stream_waits_for_the_receiver() -> None:
    senders, receivers = links(2)
    sender = MendingSender(lambda: next(senders))
    lost, back = receivers
    lost.close()
    sender.send(END)
    assert back.receive().message == END and sender.stats.dropped == 0


def test_a_receiver_that_never_comes_back_ends_the_stage() -> None:
    senders, (lost,) = links(1)

    def connect() -> Sender:
        if link := next(senders, None):
            return link
        raise TimeoutError("waited 1 s for stage 2 to come back")

    sender = MendingSender(connect)
    lost.close()
    with pytest.raises(TimeoutError, match="stage 2 to come back"):
        sender.send(END)


def test_a_reader_goes_on_with_what_a_sender_that_is_back_sends() -> None:
    senders, receivers = links(2)
    receiver = MendingReceiver(lambda: next(receivers))
    lost, back = senders
    lost.send(MARK)
    assert receiver.receive().message == MARK
    lost.close()
    back.send(END)
    assert receiver.receive().message == END
    receiver.close()


def test_a_receiver_that_is_closed_is_not_mended() -> None:
    senders, receivers = links(2)
    receiver = MendingReceiver(lambda: next(receivers))
    receiver.close()
    next(senders).close()
    with pytest.raises(ConnectionError):
        receiver.receive()
