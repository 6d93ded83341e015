"""The store between two stages: order, waiting, disposal and figures, as a queue and as a replay buffer."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from greedypipe.buffers.replay import CONTROL_CAPACITY, Policy, Read, ReplayBuffer
from greedypipe.buffers.selectors import newest
from greedypipe.buffers.stats import STALENESS_LIMIT, BufferStats

TIMEOUT_S = 10.0


def until(condition: Callable[[], bool]) -> None:
    """Polls; the deadline is for broken code only."""
    deadline, pause = time.monotonic() + TIMEOUT_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        pause.wait(0.0005)


def is_waiting(thread: threading.Thread) -> bool:
    """Whether the thread's innermost frame is a condition's wait."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and (frame.f_code.co_filename, frame.f_code.co_name) == (threading.__file__, "wait")


def start(call: Callable[[], Any]) -> "Future[Any]":
    """Starts `call` in a thread; returns when it has ended or is waiting."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: future.done() or is_waiting(thread))
    return future


def take(buffer: ReplayBuffer[str]) -> str:
    read = buffer.read(TIMEOUT_S)
    read.done()
    return read.item


def filled(capacity: int, policy: Policy, *items: str) -> ReplayBuffer[str]:
    """Small letters are control items."""
    buffer: ReplayBuffer[str] = ReplayBuffer(capacity, policy)
    for item in items:
        insert = buffer.insert_control if item.islower() else buffer.insert
        insert(item, TIMEOUT_S)
    return buffer


def test_a_queue_gives_every_item_once_in_order_and_control_at_its_place() -> None:
    buffer = filled(6, Policy.fifo(), "A", "e", "B", "C", "f", "D")
    assert [take(buffer) for _ in range(6)] == ["A", "e", "B", "C", "f", "D"]
    assert buffer.try_read() is None


def test_replay_reads_control_first_once_and_in_order() -> None:
    buffer = filled(3, Policy.replay(), "A", "e", "B", "f")
    assert [take(buffer) for _ in range(5)] == ["e", "f", "B", "A", "B"]


@pytest.mark.parametrize("letter", ["C", "c"])
def test_inserting_into_a_full_queue_waits_until_a_read_makes_room(letter: str) -> None:
    buffer = filled(2, Policy.fifo(), "A", "b")
    insert = buffer.insert_control if letter.islower() else buffer.insert
    waiting = start(lambda: insert(letter, TIMEOUT_S))
    assert not waiting.done()
    assert take(buffer) == "A"
    waiting.result(TIMEOUT_S)
    assert [take(buffer), take(buffer)] == ["b", letter]
    assert buffer.stats().wait_room_s > 0


def test_inserting_into_a_full_replay_buffer_never_waits() -> None:
    buffer = filled(2, Policy.replay(), *"ABCDEFG")
    assert [take(buffer), take(buffer)] == ["G", "F"]
    assert buffer.occupancy == 1.0 and buffer.stats().wait_room_s == 0


def test_control_waits_for_room_in_a_replay_buffer_and_training_does_not() -> None:
    buffer = filled(1, Policy.replay(), *"abcd"[:CONTROL_CAPACITY])
    waiting = start(lambda: buffer.insert_control("z", TIMEOUT_S))
    buffer.insert("A", 0.0)
    assert not waiting.done()
    assert take(buffer) == "a"
    waiting.result(TIMEOUT_S)
    assert [take(buffer) for _ in range(CONTROL_CAPACITY)] == [*"abcd"[1:CONTROL_CAPACITY], "z"]
    assert take(buffer) == "A"


@pytest.mark.parametrize("policy", [Policy.fifo(), Policy.replay(), Policy.replay(max_reuse=1)])
@pytest.mark.parametrize("letter", ["A", "a"])
def test_reading_from_an_empty_buffer_waits_until_an_item_comes(policy: Policy, letter: str) -> None:
    buffer = filled(2, policy)
    waiting = start(lambda: buffer.read(TIMEOUT_S).item)
    assert not waiting.done()
    (buffer.insert_control if letter.islower() else buffer.insert)(letter, 0.0)
    assert waiting.result(TIMEOUT_S) == letter
    assert buffer.stats().wait_input_s > 0


def test_a_reader_of_used_up_items_waits_for_the_next_one() -> None:
    buffer = filled(2, Policy.replay(newest, max_reuse=2), "A")
    assert [take(buffer), take(buffer), buffer.try_read()] == ["A", "A", None]
    waiting = start(lambda: buffer.read(TIMEOUT_S).item)
    assert not waiting.done()
    buffer.insert("B", 0.0)
    assert waiting.result(TIMEOUT_S) == "B"


def test_a_cap_on_reuse_may_come_later_and_changes_nothing_for_a_queue() -> None:
    for policy, expected in ((Policy.replay(), ["B", "A", None]), (Policy.fifo(), ["B", "C", None])):
        buffer = filled(3, policy, "A", "B", "C")
        take(buffer)
        buffer.cap_reuse(1)
        reads = [buffer.try_read() for _ in range(3)]
        assert [read.item if read else None for read in reads] == expected


def test_waiting_in_vain_is_a_timeout() -> None:
    with pytest.raises(TimeoutError, match="nothing to read"):
        filled(1, Policy.fifo()).read(0.0)
    with pytest.raises(TimeoutError, match="no room"):
        filled(1, Policy.fifo(), "A").insert("B", 0.0)
    with pytest.raises(TimeoutError, match="no room"):
        filled(1, Policy.fifo(), "A").insert_control("b", 0.0)


def test_what_did_not_fit_is_not_stored_and_not_disposed() -> None:
    disposed: list[str] = []
    buffer = ReplayBuffer(1, Policy.fifo(), dispose=disposed.append)
    buffer.insert("A", 0.0)
    with pytest.raises(TimeoutError):
        buffer.insert("B", 0.0)
    assert take(buffer) == "A" and buffer.try_read() is None
    assert disposed == ["A"] and buffer.stats().inserted == 1


@pytest.mark.parametrize(
    ("policy", "items", "call"),
    [
        (Policy.fifo(), "A", lambda buffer: buffer.insert("B", TIMEOUT_S)),
        (Policy.fifo(), "A", lambda buffer: buffer.insert_control("b", TIMEOUT_S)),
        (Policy.replay(), "ab", lambda buffer: buffer.insert_control("c", TIMEOUT_S)),
        (Policy.fifo(), "", lambda buffer: buffer.read(TIMEOUT_S)),
        (Policy.replay(), "", lambda buffer: buffer.read(TIMEOUT_S)),
    ],
)
def test_close_wakes_who_waits(policy: Policy, items: str, call: Callable[[ReplayBuffer[str]], object]) -> None:
    buffer = filled(1, policy, *items)
    waiting = start(lambda: call(buffer))
    assert not waiting.done()
    buffer.close(ConnectionError("lost stage 0"))
    with pytest.raises(ConnectionError, match="lost stage 0"):
        waiting.result(TIMEOUT_S)


@pytest.mark.parametrize("policy", [Policy.fifo(), Policy.replay()])
def test_after_close_every_call_raises_the_first_error_and_what_is_lent_can_still_be_given_back(policy: Policy) -> None:
    disposed: list[str] = []
    buffer = ReplayBuffer(2, policy, dispose=disposed.append)
    buffer.insert_control("a", 0.0)
    buffer.insert("B", 0.0)
    read = buffer.read(0.0)
    buffer.close(ConnectionError("first"))
    buffer.close(ValueError("second"))
    calls: list[Callable[[], object]] = [
        lambda: buffer.insert("C", 0.0),
        lambda: buffer.insert_control("c", 0.0),
        lambda: buffer.read(0.0),
        buffer.try_read,
    ]
    for call in calls:
        with pytest.raises(ConnectionError, match="first"):
            call()
    read.done()
    assert disposed == ["a"]


def test_an_item_that_is_replaced_while_it_is_read_is_disposed_when_its_reader_is_done() -> None:
    disposed: list[str] = []
    buffer = ReplayBuffer(1, Policy.replay(), dispose=disposed.append)
    buffer.insert("A", 0.0)
    read = buffer.read(0.0)
    buffer.insert("B", 0.0)
    assert disposed == []
    buffer.insert("C", 0.0)
    assert disposed == ["B"]
    read.done()
    assert disposed == ["B", "A"]


def test_giving_an_item_back_twice_is_noticed() -> None:
    read = filled(1, Policy.fifo(), "A").read(0.0)
    read.done()
    with pytest.raises(AssertionError, match="twice"):
        read.done()


def test_a_read_tells_how_many_newer_items_there_are_and_how_often_it_was_read() -> None:
    def figures(read: Read[str] | None) -> tuple[str, int, int] | None:
        return (read.item, read.staleness, read.reuse) if read else None

    buffer = filled(3, Policy.replay(), "A", "B", "x", "C")
    assert [figures(buffer.try_read()) for _ in range(5)] == [
        ("x", 0, 0),
        ("C", 0, 1),
        ("B", 1, 1),
        ("A", 2, 1),
        ("C", 0, 2),
    ]
    waiting = filled(3, Policy.fifo(), "A", "y", "B")
    assert [figures(waiting.try_read()) for _ in range(3)] == [("A", 1, 1), ("y", 0, 0), ("B", 0, 1)]


def test_the_figures_count_what_happened_to_training_items() -> None:
    buffer = filled(2, Policy.replay(), "A", "x", "B", "C")  # A is replaced unread
    for _ in range(4):  # x, then C, B, C
        take(buffer)
    buffer.insert("D", 0.0)  # B is replaced, but has been read
    assert buffer.stats() == BufferStats(
        capacity=2,
        inserted=4,
        reads=3,
        distinct_reads=2,
        dropped=1,
        staleness_sum=1,
        staleness_max=1,
        staleness_counts=[2, 1] + [0] * (STALENESS_LIMIT - 1),
        occupancy_sum=3.0,
    )


def test_the_histogram_counts_every_read_and_large_stalenesses_together() -> None:
    stats = BufferStats(capacity=1)
    for staleness in (0, 3, 3, STALENESS_LIMIT - 1, STALENESS_LIMIT, 1000):
        stats.count_read(staleness, first_time=True, held=1)
    counted = {staleness: count for staleness, count in enumerate(stats.staleness_counts) if count}
    assert counted == {0: 1, 3: 2, STALENESS_LIMIT - 1: 1, STALENESS_LIMIT: 2}
    assert sum(stats.staleness_counts) == stats.reads


def test_figures_that_were_asked_for_do_not_change_with_later_reads() -> None:
    buffer = filled(2, Policy.replay(), "A")
    before = buffer.stats()
    take(buffer)
    assert before == BufferStats(capacity=2, inserted=1)
    assert sum(buffer.stats().staleness_counts) == 1


@pytest.mark.parametrize(
    ("stats", "means"),
    [
        (BufferStats(4, reads=6, distinct_reads=4, staleness_sum=9, occupancy_sum=3.0), (1.5, 1.5, 0.5)),
        (BufferStats(4), (0.0, 0.0, 0.0)),
    ],
)
def test_means_are_per_read_and_per_distinct_item(stats: BufferStats, means: tuple[float, ...]) -> None:
    assert (stats.staleness_mean, stats.reuse_mean, stats.occupancy_mean) == means


def test_a_buffer_without_room_for_one_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 batch, got 0"):
        ReplayBuffer(0, Policy.fifo())


def test_occupancy_counts_training_items_only() -> None:
    assert filled(4, Policy.fifo(), "A", "x", "B").occupancy == 0.5
    assert filled(4, Policy.replay(), "A", "x", "B").occupancy == 0.5


def test_two_threads_hand_over_every_item_of_a_queue_in_order() -> None:
    disposed: list[int] = []
    buffer: ReplayBuffer[int] = ReplayBuffer(3, Policy.fifo(), dispose=disposed.append)

    def produce() -> None:
        for number in range(2000):
            (buffer.insert_control if number % 7 == 0 else buffer.insert)(number, TIMEOUT_S)

    producer = start(produce)
    found = []
    for _ in range(2000):
        read = buffer.read(TIMEOUT_S)
        found.append(read.item)
        read.done()
    producer.result(TIMEOUT_S)
    assert found == disposed == list(range(2000))


def test_two_threads_at_a_replay_buffer_never_free_what_is_being_read() -> None:
    end = 2000
    in_use: set[int] = set()
    disposed: list[int] = []
    clashes: list[int] = []

    def dispose(number: int) -> None:
        disposed.append(number)
        clashes.extend(in_use & {number})

    def produce() -> None:
        for number in range(end + 1):
            (buffer.insert_control if number % 50 == 0 else buffer.insert)(number, TIMEOUT_S)

    buffer: ReplayBuffer[int] = ReplayBuffer(3, Policy.replay(), dispose=dispose)
    producer = start(produce)
    control = []
    number = -1
    while number != end:
        read = buffer.read(TIMEOUT_S)
        number = read.item
        in_use.add(number)
        if read.reuse == 0:
            control.append(number)
        in_use.discard(number)
        read.done()
    producer.result(TIMEOUT_S)
    assert control == list(range(0, end + 1, 50))
    assert clashes == []
    assert sorted(disposed) == [n for n in range(end + 1) if n % 50 == 0 or n < end - 3]
