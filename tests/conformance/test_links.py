"""What every link does, whatever carries its bytes. Another implementation joins by one line in `LINKS`."""

import contextlib
import gc
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import torch
from torch.distributed import HashStore, PrefixStore

from workers.links.inprocess import make_inprocess_link
from workers.links.interface import Received, Receiver, Sender
from workers.links.process_group import RECEIVER, SENDER, ProcessGroupReceiver, ProcessGroupSender, Wire, connect_gloo
from workers.messages import Kind, Message, MessageLayout, TensorSpec

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
    sender, receiver = make_inprocess_link(
        LAYOUT, slots=slots, timeout_s=timeout_s, sender="stage 0", receiver="stage 1"
    )
    return Link(sender, receiver, slots, lambda link: sender.close(), lambda link: receiver.close())


def connect_gloo_in_threads(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
    # The sender's wire waits longer than its slots: the error that names the message is to come first.
    sending, receiving = gloo_wires(timeouts_s=(2 * timeout_s, timeout_s))
    return Link(
        ProcessGroupSender(sending, LAYOUT, slots=slots, timeout_s=timeout_s, peer="stage 1"),
        ProcessGroupReceiver(receiving, LAYOUT, slots=slots, timeout_s=timeout_s),
        2 * slots, lose_gloo_sender, lose_gloo_receiver,
    )  # fmt: skip


def gloo_wires(
    layouts: tuple[MessageLayout, MessageLayout] = (LAYOUT, LAYOUT), timeouts_s: tuple[float, float] = (TIMEOUT_S, TIMEOUT_S)
) -> list[Wire]:
    store = PrefixStore("attempt0", HashStore())

    def build(rank: int) -> Wire:
        peer = f"stage {1 - rank}"
        return connect_gloo(store, "link0", rank, layouts[rank], peer=peer, timeout_s=timeouts_s[rank])

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(build, (SENDER, RECEIVER)))


def lose_gloo_sender(link: Link) -> None:
    """Ends the sending thread and drops the process group: its sockets close, as when a process ends."""
    link.close_sender()
    link.sender = None
    gc.collect()


def lose_gloo_receiver(link: Link) -> None:
    assert link.receiver
    link.receiver.close()
    link.receiver = None
    gc.collect()


LINKS: dict[str, Connect] = {"inprocess": connect_inprocess, "gloo": connect_gloo_in_threads}


@pytest.fixture(params=LINKS)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Builds links of every implementation and leaves no thread of theirs behind."""
    links: list[Link] = []

    def build(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
        links.append(LINKS[request.param](slots, timeout_s))
        return links[-1]

    yield build
    for link in links:
        if link.receiver:
            link.lose_receiver(link)
        if link.sender:
            with contextlib.suppress(ConnectionError, TimeoutError):
                link.sender.close()


def message(kind: Kind = Kind.TRAIN, batch_id: int = 0, rows: int = MAX_ROWS) -> Message:
    """A message with random bits, a function of its arguments."""
    generator = torch.Generator().manual_seed(batch_id * 100 + rows)
    tensors = {}
    for spec in LAYOUT.specs.get(kind, ()):
        memory = torch.randint(0, 256, (rows * spec.row_bytes,), dtype=torch.uint8, generator=generator)
        tensors[spec.name] = memory.view(spec.dtype).view(rows, *spec.shape)
    return Message(kind, batch_id, batch_id * 3, tensors)


def assert_same(arrived: Message, sent: Message) -> None:
    assert (arrived.kind, arrived.batch_id, arrived.step, arrived.rows) == (
        sent.kind, sent.batch_id, sent.step, sent.rows,
    )  # fmt: skip
    assert list(arrived.tensors) == list(sent.tensors)
    for name, tensor in sent.tensors.items():
        got = arrived.tensors[name]
        assert (got.shape, got.dtype) == (tensor.shape, tensor.dtype)
        assert torch.equal(bits(got), bits(tensor))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8)


class Call:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def result(self) -> Any:
        return self._future.result(TIMEOUT_S)

    def waits(self) -> bool:
        """Returns once the call has ended or makes no progress: whether it waits."""
        until(lambda: self._future.done() or self._stands_still())
        return not self._future.done()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._future.set_result(call())
        except BaseException as error:
            self._future.set_exception(error)

    def _stands_still(self) -> bool:
        """Whether the thread is at the same line five times in a row, outside of this file."""
        seen, pause = set(), threading.Event()
        for _ in range(5):
            frame = sys._current_frames().get(self._thread.ident or 0)
            if frame is None or frame.f_code.co_filename == __file__ or frame.f_code.co_name.startswith("_bootstrap"):
                return False
            seen.add((frame.f_code, frame.f_lineno))
            pause.wait(0.001)
        return len(seen) == 1


def until(condition: Callable[[], bool]) -> None:
    """Polls; the deadline is for broken code only."""
    deadline, pause = time.monotonic() + TIMEOUT_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        pause.wait(0.0005)


def test_messages_arrive_in_order_with_their_bits_shapes_and_dtypes(connect: Connect) -> None:
    link = connect()
    for batch_id in range(5):
        link.send(message(batch_id=batch_id))
        received = link.receive()
        assert_same(received.message, message(batch_id=batch_id))
        received.release()


def test_the_receiver_sees_the_memory_format_of_the_layout(connect: Connect) -> None:
    link = connect()
    link.send(message())
    arrived = link.receive().message.tensors
    assert arrived["activation"].is_contiguous(memory_format=torch.channels_last)
    assert arrived["image"].is_contiguous() and arrived["labels"].is_contiguous()


@pytest.mark.parametrize("rows", [1, MAX_ROWS - 1, MAX_ROWS])
def test_an_uneven_batch_arrives_with_its_own_number_of_rows(connect: Connect, rows: int) -> None:
    link = connect()
    for batch_id, number in enumerate((MAX_ROWS, rows)):
        link.send(message(batch_id=batch_id, rows=number))
        received = link.receive()
        assert_same(received.message, message(batch_id=batch_id, rows=number))
        received.release()


def test_evaluation_and_marks_travel_between_training_messages(connect: Connect) -> None:
    stream = [
        message(Kind.TRAIN, 0), message(Kind.EVALUATE, 0), message(Kind.EVALUATE, 1, rows=2), message(Kind.EVALUATED, 4),
        message(Kind.TRAIN, 1), message(Kind.EVALUATED, 5), message(Kind.END, 2),
    ]  # fmt: skip
    link = connect()
    sending = Call(lambda: [link.send(item) for item in stream])
    for item in stream:
        received = link.receive()
        assert_same(received.message, item)
        received.release()
    sending.result()


def test_the_caller_may_overwrite_its_tensors_as_soon_as_send_returns(connect: Connect) -> None:
    link = connect()
    sent = message()
    link.send(sent)
    for tensor in sent.tensors.values():
        tensor.zero_()
    assert_same(link.receive().message, message())


def test_a_received_message_stays_as_it_is_until_it_is_released(connect: Connect) -> None:
    link = connect(slots=2)
    link.send(message(batch_id=0))
    held = link.receive()
    for batch_id in range(1, 6):
        link.send(message(batch_id=batch_id))
        received = link.receive()
        assert_same(received.message, message(batch_id=batch_id))
        received.release()
    assert_same(held.message, message(batch_id=0))


def test_sending_waits_while_the_receiver_releases_nothing(connect: Connect) -> None:
    link = connect(slots=2)
    sent: list[int] = []

    def send_one_too_many() -> None:
        for batch_id in range(link.room + 1):
            link.send(message(batch_id=batch_id))
            sent.append(batch_id)

    sending = Call(send_one_too_many)
    held = [link.receive(), link.receive()]
    until(lambda: len(sent) >= link.room)
    assert sending.waits() and len(sent) == link.room
    held[0].release()
    assert_same(link.receive().message, message(batch_id=2))
    sending.result()
    assert len(sent) == link.room + 1
    assert link.sender and link.sender.wait_room_s > 0


def test_sending_does_not_wait_while_there_is_room(connect: Connect) -> None:
    link = connect(slots=2)
    link.send(message(batch_id=0))
    link.send(message(batch_id=1))
    assert link.sender and link.sender.wait_room_s == 0


def test_close_waits_until_the_receiver_has_taken_everything(connect: Connect) -> None:
    link = connect(slots=2)
    link.send(message(batch_id=0))
    link.send(message(Kind.END, 1))
    closing = Call(link.close_sender)
    assert closing.waits()
    held = [link.receive()]
    assert closing.waits()
    held.append(link.receive())
    closing.result()
    assert [received.message.kind for received in held] == [Kind.TRAIN, Kind.END]


def test_both_ends_may_be_closed_twice(connect: Connect) -> None:
    link = connect()
    link.send(message(Kind.END))
    assert link.receive().message.kind == Kind.END
    for end in (link.sender, link.receiver) * 2:
        assert end
        end.close()


def assert_times_out(call: Callable[[], object], match: str | None) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=match):
        call()
    assert 0.9 * SHORT_S < time.monotonic() - started < 10 * SHORT_S


def test_a_sender_without_room_gives_up_at_its_deadline_and_names_the_receiver(connect: Connect) -> None:
    link = connect(slots=2, timeout_s=SHORT_S)
    link.send(message(batch_id=7))
    link.send(message(batch_id=8))
    assert_times_out(lambda: link.send(message(batch_id=9)), "stage 1.*batch_id 9")


def test_a_receiver_without_messages_gives_up_at_its_deadline_and_names_the_sender(connect: Connect) -> None:
    link = connect(timeout_s=SHORT_S)
    assert_times_out(link.receive, "stage 0")


def test_a_receiver_that_was_given_no_slot_back_gives_up_at_its_deadline(connect: Connect) -> None:
    link = connect(slots=2, timeout_s=SHORT_S)
    link.send(message(batch_id=0))
    link.send(message(batch_id=1))
    held = [link.receive(), link.receive()]
    assert_times_out(link.receive, None)
    assert_same(held[0].message, message(batch_id=0))


def test_closing_gives_up_at_the_deadline_and_names_the_receiver(connect: Connect) -> None:
    link = connect(timeout_s=SHORT_S)
    link.send(message(Kind.END))
    assert_times_out(link.close_sender, "stage 1")


def test_a_waiting_receiver_learns_that_the_sender_is_gone(connect: Connect) -> None:
    link = connect()
    link.send(message())
    link.receive().release()
    receiving = Call(link.receive)
    assert receiving.waits()
    link.lose_sender(link)
    with pytest.raises(ConnectionError, match="stage 0"):
        receiving.result()


def test_a_receiver_gets_what_was_sent_and_then_learns_that_the_sender_is_gone(connect: Connect) -> None:
    link = connect()
    link.send(message(batch_id=0))
    losing = Call(lambda: link.lose_sender(link))
    assert_same(link.receive().message, message(batch_id=0))
    losing.result()
    with pytest.raises(ConnectionError, match="stage 0"):
        link.receive()


def test_a_sender_learns_that_the_receiver_is_gone(connect: Connect) -> None:
    link = connect(slots=2)
    link.lose_receiver(link)
    with pytest.raises(ConnectionError, match="stage 1"):
        for batch_id in range(4):
            link.send(message(batch_id=batch_id))
    with pytest.raises(ConnectionError, match="stage 1"):
        link.close_sender()


def test_a_waiting_sender_learns_that_the_receiver_is_gone(connect: Connect) -> None:
    link = connect(slots=2)
    sending = Call(lambda: [link.send(message(batch_id=batch_id)) for batch_id in range(5)])
    assert sending.waits()
    link.lose_receiver(link)
    with pytest.raises(ConnectionError, match="stage 1"):
        sending.result()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (message(rows=MAX_ROWS + 1), "7 rows.*allows 6"),
        (Message(Kind.TRAIN, 0, 0, {"labels": torch.arange(6)}), "activation.*got None"),
        (Message(Kind.TRAIN, 0, 0, dict(message().tensors) | {"labels": torch.zeros(6)}), "labels.*float32"),
        (Message(Kind.TRAIN, 0, 0, dict(message().tensors) | {"labels": torch.arange(3)}), "6 rows|3 rows"),
    ],
    ids=["too_many_rows", "missing_tensor", "wrong_dtype", "uneven_rows"],
)
def test_a_message_that_does_not_fit_is_refused(connect: Connect, wrong: Message, match: str) -> None:
    link = connect()
    with pytest.raises(ValueError, match=match):
        link.send(wrong)


def test_a_refused_message_costs_no_slot(connect: Connect) -> None:
    link = connect(slots=1, timeout_s=SHORT_S)
    with pytest.raises(ValueError):
        link.send(message(rows=MAX_ROWS + 1))
    link.send(message(batch_id=5))
    assert_same(link.receive().message, message(batch_id=5))


def test_many_messages_of_random_sizes_arrive_intact_under_concurrency(connect: Connect) -> None:
    link = connect(slots=3)
    chance = random.Random(0)
    kinds = [Kind.TRAIN, Kind.TRAIN, Kind.EVALUATE, Kind.EVALUATED]
    stream = [message(chance.choice(kinds), number, chance.randint(1, MAX_ROWS)) for number in range(200)]
    sending = Call(lambda: [link.send(item) for item in stream])
    held: list[tuple[Received, Message]] = []
    with ThreadPoolExecutor(1) as releasing:
        for item in stream:
            received = link.receive()
            assert_same(received.message, item)
            held.append((received, item))
            if len(held) == 2 or chance.random() < 0.5:
                oldest, contents = held.pop(chance.randrange(len(held)))
                assert_same(oldest.message, contents)
                releasing.submit(oldest.release)
    sending.result()
    link.close_sender()


OTHER_LAYOUTS = {
    "rows": MessageLayout(MAX_ROWS + 1, LAYOUT.specs),
    "fewer_tensors": MessageLayout(MAX_ROWS, {Kind.TRAIN: (LABELS, ACTIVATION)}),
    "longer": MessageLayout(MAX_ROWS, {Kind.TRAIN: (*LAYOUT.specs[Kind.TRAIN], TensorSpec("more", (9,), torch.int8))}),
}


@pytest.mark.parametrize("other", OTHER_LAYOUTS.values(), ids=OTHER_LAYOUTS)
@pytest.mark.parametrize("rank", [SENDER, RECEIVER])
def test_ends_of_gloo_with_different_layouts_refuse_to_connect(other: MessageLayout, rank: int) -> None:
    store = HashStore()
    theirs = ThreadPoolExecutor(1).submit(connect_gloo, store, "link0", 1 - rank, other, peer="stage 4", timeout_s=TIMEOUT_S)
    with pytest.raises(ValueError, match="stage 3 has another message layout"):
        connect_gloo(store, "link0", rank, LAYOUT, peer="stage 3", timeout_s=TIMEOUT_S)
    with pytest.raises(ValueError, match="stage 4 has another message layout"):
        theirs.result(TIMEOUT_S)


@pytest.mark.parametrize("rank", [SENDER, RECEIVER])
def test_an_end_of_gloo_whose_peer_does_not_come_gives_up_at_the_deadline(rank: int) -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"waited 0.3 s to connect to stage 5"):
        connect_gloo(HashStore(), "link0", rank, LAYOUT, peer="stage 5", timeout_s=SHORT_S)
    assert 0.9 * SHORT_S < time.monotonic() - started < 10 * SHORT_S
