"""Packets between the two ends of a link whose tensors travel another way."""

import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from greedypipe.workers.links.control import ControlSocket
from tests.conformance.calls import TIMEOUT_S, Call

Pair = tuple[ControlSocket, ControlSocket]
SHORT_S = 0.1


@pytest.fixture(params=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "unix":
        here, there = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = socket.create_connection(listener.getsockname())
            there, _ = listener.accept()
    for one in (here, there):
        for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            one.setsockopt(socket.SOL_SOCKET, size, 1 << 14)
    ends = ControlSocket(here, "stage 1"), ControlSocket(there, "stage 0")
    yield ends
    for end in ends:
        end.close()


def next_packet(end: ControlSocket) -> tuple[int, ...]:
    while (packet := end.take()) is None:
        end.wait(TIMEOUT_S)
    return packet


def test_packets_arrive_in_order_and_whole(pair: Pair) -> None:
    here, there = pair
    here.put(1, -2, 3), here.put(2**62)
    assert next_packet(there) == (1, -2, 3, 0, 0, 0, 0, 0)
    assert next_packet(there)[0] == 2**62
    assert there.take() is None and there.is_peer_there()


def test_more_packets_than_the_socket_holds_block_nobody_and_arrive_all(pair: Pair) -> None:
    here, there = pair
    count = 5000
    for number in range(count):
        here.put(number)
    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(here.flush, TIMEOUT_S)
        assert [next_packet(there)[0] for _ in range(count)] == list(range(count))
        sending.result()
    with pytest.raises(TimeoutError, match=r"waited 0.1 s for stage 1 to take a message"):
        for number in range(count):
            here.put(number)
        here.flush(SHORT_S)


def test_what_could_not_be_sent_is_sent_while_somebody_waits(pair: Pair) -> None:
    here, there = pair
    count = 5000
    all_arrived = threading.Event()

    def wait() -> None:
        while not all_arrived.is_set():
            here.wait(None)

    waiting = Call(wait)
    for number in range(count):
        here.put(number)
    assert [next_packet(there)[0] for _ in range(count)] == list(range(count))
    all_arrived.set()
    here.poke()
    waiting.result()


def test_a_wait_ends_at_its_deadline_by_a_poke_and_by_a_packet(pair: Pair) -> None:
    here, there = pair
    started = time.monotonic()
    here.wait(SHORT_S)
    assert time.monotonic() - started >= 0.9 * SHORT_S
    here.poke()
    here.wait(TIMEOUT_S)
    waiting = Call(lambda: here.wait(None))
    assert waiting.waits()
    there.put(5)
    waiting.result()
    assert next_packet(here)[0] == 5


def test_an_end_that_has_gone_is_lost_once_everything_is_taken(pair: Pair) -> None:
    here, there = pair
    waiting = Call(lambda: there.wait(None))
    assert waiting.waits()
    here.put(9)
    here.close()
    waiting.result()
    assert next_packet(there)[0] == 9
    with pytest.raises(ConnectionError, match="lost stage 0: it has closed the link"):
        next_packet(there)
    assert not there.is_peer_there()
    there.put(1), there.flush(SHORT_S)  # one that is gone need not know


def wait_and_close() -> None:
    here, _ = (ControlSocket(end, "a peer") for end in socket.socketpair())
    waiting = Call(lambda: here.wait(None))
    assert waiting.waits()
    here.close(), here.close()
    waiting.result()


def test_closing_ends_the_wait_of_another_thread_and_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    wait_and_close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
