"""A fixed number of slots, handed out and given back."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from greedypipe.workers.links.slots import SlotPool

TIMEOUT_S = 10.0


def numbered(count: int) -> SlotPool[int]:
    numbers = iter(range(count))
    return SlotPool(count, lambda: next(numbers))


def start_waiting(call: Callable[[], int]) -> "Future[int]":
    """Starts `call` in a thread; returns when it is waiting."""
    future: Future[int] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline, pause = time.monotonic() + TIMEOUT_S, threading.Event()
    while not is_waiting(thread):
        assert not future.done() and time.monotonic() < deadline
        pause.wait(0.0005)
    return future


def is_waiting(thread: threading.Thread) -> bool:
    """Whether the thread's innermost frame is a condition's wait."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and (frame.f_code.co_filename, frame.f_code.co_name) == (threading.__file__, "wait")


def test_every_slot_is_made_once_and_at_the_start() -> None:
    made: list[int] = []
    pool = SlotPool(3, lambda: made.append(len(made)) or made[-1])
    assert made == [0, 1, 2]
    for _ in range(9):
        pool.release(pool.acquire(TIMEOUT_S))
    assert made == [0, 1, 2]


def test_no_slot_is_handed_out_twice() -> None:
    pool = numbered(3)
    assert sorted(pool.acquire(TIMEOUT_S) for _ in range(3)) == [0, 1, 2]


def test_acquiring_waits_until_a_slot_is_given_back() -> None:
    pool = numbered(1)
    slot = pool.acquire(TIMEOUT_S)
    waiting = start_waiting(lambda: pool.acquire(TIMEOUT_S))
    assert not waiting.done()
    pool.release(slot)
    assert waiting.result(TIMEOUT_S) == slot
    assert pool.waited_s > 0


def test_a_free_slot_costs_no_waiting() -> None:
    pool = numbered(2)
    pool.acquire(0.0)
    pool.acquire(0.0)
    assert pool.waited_s == 0


def test_waiting_in_vain_is_a_timeout() -> None:
    pool = numbered(1)
    pool.acquire(TIMEOUT_S)
    with pytest.raises(TimeoutError, match="no free slot"):
        pool.acquire(0.0)


def test_a_slot_that_was_given_back_after_a_timeout_can_be_acquired() -> None:
    pool = numbered(1)
    slot = pool.acquire(0.0)
    with pytest.raises(TimeoutError):
        pool.acquire(0.0)
    pool.release(slot)
    assert pool.acquire(0.0) == slot


def test_close_wakes_who_waits() -> None:
    pool = numbered(1)
    pool.acquire(TIMEOUT_S)
    waiting = start_waiting(lambda: pool.acquire(TIMEOUT_S))
    pool.close(ConnectionError("lost stage 2"))
    with pytest.raises(ConnectionError, match="lost stage 2"):
        waiting.result(TIMEOUT_S)


def test_after_close_acquiring_raises_the_first_error_even_with_slots_free() -> None:
    pool = numbered(2)
    slot = pool.acquire(TIMEOUT_S)
    pool.close(ConnectionError("first"))
    pool.close(ValueError("second"))
    pool.release(slot)
    with pytest.raises(ConnectionError, match="first"):
        pool.acquire(TIMEOUT_S)


def test_slots_released_by_many_threads_are_never_in_two_hands() -> None:
    pool = numbered(3)
    in_use: set[int] = set()
    clashes: list[int] = []
    lent: list[int] = []
    returned = threading.Semaphore(0)

    def give_back() -> None:
        for _ in range(300):
            returned.acquire(timeout=TIMEOUT_S)
            slot = lent.pop()
            in_use.discard(slot)
            pool.release(slot)

    threads = [threading.Thread(target=give_back, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(900):
        slot = pool.acquire(TIMEOUT_S)
        clashes.extend(in_use & {slot})
        in_use.add(slot)
        lent.append(slot)
        returned.release()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert clashes == [] and in_use == set()
