"""The inbox over a link that can be polled: the reading thread fills the queue itself."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from greedypipe.buffers.replay import BuffersConfig
from greedypipe.workers.inbox import SLOTS_BEYOND_BUFFER, Inbox
from greedypipe.workers.links.interface import Sender
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.shared_memory import attach_shared_memory, serve_shared_memory
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.status import StageStatus
from tests.conformance.calls import TIMEOUT_S, Call
from tests.unit.test_inbox import LAYOUT, SHORT_S, holds_its_own_number, message, word

Connect = Callable[..., tuple[Sender, Inbox]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    ends: list[tuple[Sender, Inbox]] = []

    def build(config: BuffersConfig | None = None, timeout_s: float = TIMEOUT_S) -> tuple[Sender, Inbox]:
        store, config = HashStore(), config or BuffersConfig()
        slots = config.capacity + SLOTS_BEYOND_BUFFER
        with ThreadPoolExecutor(1) as thread:
            serving = thread.submit(
                serve_shared_memory, store, "link0", LAYOUT, slots=slots, patience=Patience("stage 0", timeout_s)
            )
            sender = attach_shared_memory(store, "link0", LAYOUT, patience=Patience("stage 1", TIMEOUT_S))
        status = StageStatus(Seat(1, 1), blocks=[1], pid=0, host="here", batch_id=41)
        inbox = Inbox(serving.result(), config, seed=0, status=status, upstream="stage 0", timeout_s=timeout_s)
        ends.append((sender, inbox))
        return ends[-1]

    yield build
    for _, inbox in ends:
        inbox.close()


def send(sender: Sender, picture: str) -> None:
    for item in picture.split():
        sender.send(message(item))


@pytest.mark.parametrize("capacity", [1, 2, 20])
def test_a_queue_gives_every_message_in_the_order_of_sending_up_to_the_end(connect: Connect, capacity: int) -> None:
    stream = "T0 T1 E0 E1 M1 T2 T3 T4 T5 E0 E1 M2 T6 END7"
    sender, inbox = connect(BuffersConfig(capacity=capacity))
    sending = Call(lambda: send(sender, stream))
    found = [(word(delivery), delivery.reuse, holds_its_own_number(delivery)) for delivery in inbox]
    sending.result()
    assert found == [(item, int(item[0] == "T"), True) for item in stream.split()]
    assert inbox.stats().reads == 7


def test_a_queue_starts_no_thread_and_replay_does(connect: Connect) -> None:
    before = threading.active_count()
    connect()
    assert threading.active_count() == before
    connect(BuffersConfig(policy="replay"))
    assert threading.active_count() == before + 1


def test_a_queue_takes_no_more_than_it_has_room_for_and_holds_back_its_producer(connect: Connect) -> None:
    sender, inbox = connect(BuffersConfig(capacity=2))
    send(sender, "T0 T1 T2")
    messages = iter(inbox)
    assert next(messages).staleness == 1, "of three that have come, two have been taken"
    sending = Call(lambda: send(sender, "T3 T4 T5 T6 T7"))
    assert sending.waits()
    assert [word(next(messages)) for _ in range(7)] == [f"T{number}" for number in range(1, 8)]
    sending.result()
    assert sender.wait_room_s > 0


def test_what_has_come_before_the_sender_was_lost_is_read_first(connect: Connect) -> None:
    sender, inbox = connect()
    send(sender, "T0")
    messages = iter(inbox)
    assert word(next(messages)) == "T0"
    sender.close()
    with pytest.raises(ConnectionError, match="lost stage 0"):
        next(messages)


def test_a_reader_that_waits_in_vain_says_who_waited_for_whom_and_since_which_batch(connect: Connect) -> None:
    _, inbox = connect(timeout_s=SHORT_S)
    with pytest.raises(TimeoutError, match=r"^stage 1 waited 0\.05 s for an activation of stage 0, last batch_id 41$"):
        next(iter(inbox))
