"""What every link does, whatever carries its bytes."""

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from greedypipe.workers.links.interface import Received
from greedypipe.workers.links.messages import Kind, Message
from tests.conformance.calls import Call, until
from tests.conformance.implementations import (
    CUDA_LINKS,
    LAYOUT,
    LINKS,
    MAX_ROWS,
    SHORT_S,
    SIMULATED_LINKS,
    TIMEOUT_S,
    Connect,
    Link,
    Settled,
)

ON_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
OTHERS = [pytest.param(connect, id=name, marks=pytest.mark.slow) for name, connect in SIMULATED_LINKS.items()]
OTHERS += [pytest.param(connect, id=name, marks=ON_CUDA) for name, connect in CUDA_LINKS.items()]


@pytest.fixture(params=[*(pytest.param(connect, id=name) for name, connect in LINKS.items()), *OTHERS])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Builds links of every implementation and leaves no thread of theirs behind."""
    links: list[Link] = []

    def build(slots: int = 2, timeout_s: float = TIMEOUT_S) -> Link:
        links.append(request.param(slots, timeout_s))
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
        size = rows * math.prod(spec.shape) * spec.dtype.itemsize
        memory = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)
        tensors[spec.name] = memory.view(spec.dtype).view(rows, *spec.shape)
    return Message(kind, batch_id, batch_id * 3, tensors)


def assert_same(arrived: Message, sent: Message) -> None:
    assert (arrived.kind, arrived.batch_id, arrived.step, arrived.rows) == (
        sent.kind,
        sent.batch_id,
        sent.step,
        sent.rows,
    )
    assert list(arrived.tensors) == list(sent.tensors)
    for name, tensor in sent.tensors.items():
        got = arrived.tensors[name]
        assert (got.shape, got.dtype) == (tensor.shape, tensor.dtype)
        assert torch.equal(bits(got), bits(tensor))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8)


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


@pytest.mark.parametrize("rows", [0, 1, MAX_ROWS - 1, MAX_ROWS])
def test_an_uneven_batch_arrives_with_its_own_number_of_rows(connect: Connect, rows: int) -> None:
    link = connect()
    for batch_id, number in enumerate((MAX_ROWS, rows)):
        link.send(message(batch_id=batch_id, rows=number))
        received = link.receive()
        assert_same(received.message, message(batch_id=batch_id, rows=number))
        received.release()


def test_evaluation_and_marks_travel_between_training_messages(connect: Connect) -> None:
    stream = [
        message(Kind.TRAIN, 0),
        message(Kind.EVALUATE, 0),
        message(Kind.EVALUATE, 1, rows=2),
        message(Kind.EVALUATED, 4),
        message(Kind.TRAIN, 1),
        message(Kind.EVALUATED, 5),
        message(Kind.END, 2),
    ]
    link = connect()
    sending = Call(lambda: [link.send(item) for item in stream])
    for item in stream:
        received = link.receive()
        assert_same(received.message, item)
        received.release()
    sending.result()


def test_the_caller_may_overwrite_its_tensors_as_soon_as_send_returns(connect: Connect) -> None:
    link = connect()
    if isinstance(link.receiver, Settled) and not torch.cuda.is_available():
        pytest.skip("on a device it holds for what is put on the stage's stream")
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
    for batch_id in range(link.room_unread):
        link.send(message(batch_id=batch_id))
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


def test_an_end_that_is_abandoned_waits_for_nobody_and_the_other_one_learns_of_it(connect: Connect) -> None:
    link = connect(slots=2)
    link.send(message())
    held = link.receive()
    receiving = Call(link.receive)
    assert receiving.waits() and link.sender
    link.sender.abandon()
    with pytest.raises(ConnectionError, match="stage 0"):
        receiving.result()
    assert_same(held.message, message())


def test_what_was_not_taken_of_an_abandoned_link_holds_nobody_back(connect: Connect) -> None:
    link = connect(slots=2)
    link.send(message(batch_id=0))
    link.send(message(batch_id=1))
    assert link.sender
    link.sender.abandon()
    link.sender.abandon()


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
