"""The inbox: a link, a receiving thread and a buffer, read as one stream of messages."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from greedypipe.buffers.replay import CONTROL_CAPACITY, BuffersConfig
from greedypipe.pipeline.batch import TensorSpec
from greedypipe.workers.inbox import SLOTS_BEYOND_BUFFER, Delivery, Inbox
from greedypipe.workers.links.inprocess import make_inprocess_link
from greedypipe.workers.links.interface import Received, Receiver
from greedypipe.workers.links.messages import Kind, Message, MessageLayout
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.status import StageStatus
from tests.conformance.calls import TIMEOUT_S, Call, is_waiting, until

SHORT_S = 0.05
TENSORS = (TensorSpec("activation", (4,), torch.float32),)
LAYOUT = MessageLayout(2, {Kind.TRAIN: TENSORS, Kind.EVALUATE: TENSORS})
LETTERS = {"T": Kind.TRAIN, "E": Kind.EVALUATE, "M": Kind.EVALUATED, "END": Kind.END}


class Pipe:
    """An inbox of stage 1 and the sender that feeds it; the receiver has as many slots as in a run."""

    def __init__(self, config: BuffersConfig, timeout_s: float) -> None:
        self.status = StageStatus(Seat(1, 1), blocks=[1], pid=0, host="here", batch_id=41)
        self.slots = config.capacity + SLOTS_BEYOND_BUFFER
        before = set(threading.enumerate())
        self.sender, receiver = make_inprocess_link(LAYOUT, slots=self.slots, timeout_s=TIMEOUT_S, sender="stage 0")
        self.inbox = Inbox(receiver, config, seed=0, status=self.status, upstream="stage 0", timeout_s=timeout_s)
        (self.receiving_thread,) = set(threading.enumerate()) - before

    def send(self, picture: str) -> None:
        for word in picture.split():
            self.sender.send(message(word))

    def close(self) -> None:
        self.inbox.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.sender.close()


Connect = Callable[..., Pipe]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Builds pipes and ends their threads."""
    pipes: list[Pipe] = []

    def build(config: BuffersConfig | None = None, timeout_s: float = TIMEOUT_S) -> Pipe:
        pipes.append(Pipe(config or BuffersConfig(), timeout_s))
        return pipes[-1]

    yield build
    for pipe in pipes:
        pipe.close()


def replay(capacity: int = 3, **keys: Any) -> BuffersConfig:
    return BuffersConfig(policy="replay", capacity=capacity, **keys)


def message(word: str) -> Message:
    """ "T7" is the training batch 7, every number in it 7."""
    letters = word.rstrip("0123456789")
    kind, number = LETTERS[letters], int(word[len(letters) :] or 0)
    tensors = {"activation": torch.full((2, 4), float(number))} if kind in LAYOUT.specs else {}
    return Message(kind, number, number, tensors)


def word(delivery: Delivery) -> str:
    return {kind: letter for letter, kind in LETTERS.items()}[delivery.message.kind] + str(delivery.message.batch_id)


def holds_its_own_number(delivery: Delivery) -> bool:
    return all(bool((tensor == delivery.message.batch_id).all()) for tensor in delivery.message.tensors.values())


class Scripted(Receiver):
    """Gives these messages and then fails."""

    def __init__(self, messages: list[Message], error: BaseException) -> None:
        self._messages = messages
        self._error = error

    def receive(self) -> Received:
        if not self._messages:
            raise self._error
        return Received(self._messages.pop(0), lambda: None)

    def close(self) -> None:
        pass


def scripted_inbox(messages: list[Message], error: BaseException, config: BuffersConfig | None = None) -> Inbox:
    status = StageStatus(Seat(1, 1), blocks=[1], pid=0, host="here")
    receiver = Scripted(messages, error)
    return Inbox(receiver, config or BuffersConfig(), seed=0, status=status, upstream="stage 0", timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("capacity", [1, 2, 20])
def test_a_queue_gives_every_message_in_the_order_of_sending_up_to_the_end(connect: Connect, capacity: int) -> None:
    stream = "T0 T1 E0 E1 M1 T2 T3 T4 T5 E0 E1 M2 T6 END7"
    pipe = connect(BuffersConfig(capacity=capacity))
    sending = Call(lambda: pipe.send(stream))
    found = [(word(delivery), delivery.reuse, holds_its_own_number(delivery)) for delivery in pipe.inbox]
    sending.result()
    assert found == [(item, int(item[0] == "T"), True) for item in stream.split()]
    assert pipe.inbox.stats().reads == 7 and pipe.inbox.stats().reuse_mean == 1.0


def test_a_queue_holds_back_its_producer_and_reports_the_age_of_what_is_read(connect: Connect) -> None:
    pipe = connect(BuffersConfig(capacity=2))
    # Two in the buffer, one in the receiving thread's hand; the rest of the shared slots are the sender's.
    sending = Call(lambda: pipe.send(" ".join(f"T{number}" for number in range(pipe.slots + 1))))
    assert sending.waits()
    until(lambda: pipe.inbox.stats().inserted == 2)
    messages = iter(pipe.inbox)
    assert [next(messages).message.batch_id for _ in range(2)] == [0, 1]
    sending.result()
    assert pipe.sender.wait_room_s > 0 and pipe.inbox.stats().staleness_max == 1


def test_a_fast_producer_never_waits_for_a_reader_of_replay(connect: Connect) -> None:
    pipe = connect(replay(capacity=3))
    pipe.send("T0")
    messages = iter(pipe.inbox)
    held = next(messages)
    for number in range(1, 201):
        pipe.send(f"T{number}")
    until(lambda: pipe.inbox.stats().inserted == 201)
    assert pipe.sender.wait_room_s < 1.0 and pipe.inbox.stats().wait_room_s == 0
    assert held.message.batch_id == 0 and holds_its_own_number(held)
    later = [next(messages) for _ in range(5)]
    assert [(word(delivery), delivery.staleness, delivery.reuse) for delivery in later] == [
        ("T200", 0, 1),
        ("T199", 1, 1),
        ("T198", 2, 1),
        ("T200", 0, 2),
        ("T199", 1, 2),
    ]
    assert pipe.inbox.stats().dropped == 197


def test_a_reader_of_replay_goes_on_without_a_producer_unless_it_wants_each_message_once(connect: Connect) -> None:
    pipe = connect(replay(capacity=2, max_reuse=0))
    pipe.send("T0")
    messages = iter(pipe.inbox)
    assert [next(messages).reuse for _ in range(4)] == [1, 2, 3, 4]
    pipe.inbox.read_each_once()
    reading = Call(lambda: word(next(messages)))
    assert reading.waits()
    pipe.send("T1")
    assert reading.result() == "T1"


def test_replay_gives_control_messages_first_once_and_in_order(connect: Connect) -> None:
    pipe = connect(replay(capacity=2))
    pipe.send("T0")
    messages = iter(pipe.inbox)
    assert word(next(messages)) == "T0"
    sending = Call(lambda: pipe.send("T1 E0 T2 E1 M3 T3 END4"))
    found = [word(delivery) for delivery in messages]
    sending.result()
    assert [item for item in found if item[0] != "T"] == ["E0", "E1", "M3", "END4"]


@pytest.mark.parametrize("config", [BuffersConfig(capacity=3), replay(3), replay(1), replay(3, selector="uniform")])
def test_no_slot_is_used_again_while_its_message_is_read(connect: Connect, config: BuffersConfig) -> None:
    pipe = connect(config)
    stream = " ".join(f"T{number}" if number % 9 else f"E{number}" for number in range(150)) + " END150"
    sending = Call(lambda: pipe.send(stream))
    damaged = []
    for delivery in pipe.inbox:
        # Every slot of the link could be filled again meanwhile, or else the producer stands still.
        goal = pipe.inbox.stats().inserted + 2 * pipe.slots
        until(
            lambda goal=goal: (
                pipe.inbox.stats().inserted >= goal
                or not pipe.receiving_thread.is_alive()
                or is_waiting(pipe.receiving_thread)
            )
        )
        if not holds_its_own_number(delivery):
            damaged.append(word(delivery))
    sending.result()
    assert damaged == []


def test_a_run_has_slots_for_a_full_buffer_what_is_read_and_waiting_control(connect: Connect) -> None:
    pipe = connect(replay(capacity=2))
    pipe.send("T0")
    messages = iter(pipe.inbox)
    held = next(messages)
    control = [f"E{number}" for number in range(CONTROL_CAPACITY + 1)]
    pipe.send("T1 T2 " + " ".join(control))  # T0 is replaced but still read, the last E is in the receiving thread's hand
    until(lambda: is_waiting(pipe.receiving_thread))
    assert pipe.sender.wait_room_s == 0 and holds_its_own_number(held)
    sending = Call(lambda: pipe.send("T3 END4"))
    found = [word(delivery) for delivery in messages]
    sending.result()
    assert [item for item in found if item[0] == "E"] == [*control, "END4"]


def test_a_message_stays_valid_until_the_next_is_asked_for_even_if_the_link_is_given_up(connect: Connect) -> None:
    pipe = connect()
    pipe.send("T3 END4")
    found = []
    for delivery in pipe.inbox:
        if delivery.message.kind == Kind.END:
            pipe.inbox.close()
            pipe.inbox.close()
        found.append((word(delivery), holds_its_own_number(delivery)))
    assert found == [("T3", True), ("END4", True)]


@pytest.mark.parametrize("config", [BuffersConfig(), replay()])
@pytest.mark.parametrize(
    "error", [ConnectionError("lost stage 0: closed"), ValueError("another layout"), AssertionError("bug")], ids=repr
)
def test_what_stops_the_receiving_thread_is_raised_where_messages_are_read(
    config: BuffersConfig, error: BaseException
) -> None:
    with pytest.raises(type(error), match=str(error)):
        list(scripted_inbox([], error, config))


def test_an_error_of_the_link_wakes_a_reader_that_waits(connect: Connect) -> None:
    pipe = connect()
    reading = Call(lambda: next(iter(pipe.inbox)))
    assert reading.waits()
    pipe.sender.close()
    with pytest.raises(ConnectionError):
        reading.result()


def test_a_reader_that_waits_in_vain_says_who_waited_for_whom_and_since_which_batch(connect: Connect) -> None:
    pipe = connect(timeout_s=SHORT_S)
    with pytest.raises(TimeoutError, match=r"^stage 1 waited 0\.05 s for an activation of stage 0, last batch_id 41$"):
        next(iter(pipe.inbox))


def test_a_deadline_that_the_link_has_passed_is_not_reported_as_the_readers() -> None:
    inbox = scripted_inbox([], TimeoutError("waited 0.3 s for a free slot"))
    with pytest.raises(TimeoutError, match=r"waited 0\.3 s for a free slot"):
        next(iter(inbox))


def test_a_reader_that_was_too_slow_is_not_told_that_upstream_was(connect: Connect) -> None:
    pipe = connect(BuffersConfig(capacity=1), timeout_s=SHORT_S)
    pipe.send("T0 T1")
    pipe.receiving_thread.join(TIMEOUT_S)  # nobody reads T0, so T1 finds no room
    assert not pipe.receiving_thread.is_alive()
    with pytest.raises(TimeoutError, match="stage 1 read nothing"):
        next(iter(pipe.inbox))


def test_the_status_says_what_the_reader_waits_for(connect: Connect) -> None:
    pipe = connect()
    reading = Call(lambda: next(iter(pipe.inbox)))
    assert reading.waits() and (pipe.status.activity, pipe.status.peer) == (Activity.WAIT_INPUT, "stage 0")
    pipe.send("T0")
    reading.result()
    assert (pipe.status.activity, pipe.status.peer) == (Activity.COMPUTING, "")
    assert pipe.inbox.wait_s > 0
