"""No process sends its first message while links over NCCL are being set up at its own device or at the receiver's."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed import HashStore, Store

from greedypipe.launch.process.connect_edges import StageLinks
from greedypipe.launch.recovery.attempt import Attempt
from greedypipe.workers.links.interface import DeadEnd
from greedypipe.workers.links.patience import GivenUp
from greedypipe.workers.placement import Placement, Seat
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.status import StageStatus

TIMEOUT_S, SHORT_S = 10.0, 0.3


class End(DeadEnd):
    """Of a link that no message goes over."""

    lends, slot_bytes = False, 0

    def __init__(self, meets_on_device: bool) -> None:
        super().__init__()
        self.meets_on_device = meets_on_device


class Process:
    """What of a process connects: its links exist as soon as it asks for them."""

    def __init__(self, placement: Placement, seat: Seat, store: Store, *, on_device: bool = True, timeout_s: float = 10.0):
        self.peers: list[Seat] = []
        self.is_over = False
        self.status = StageStatus(seat, blocks=[0], pid=0, host="")
        meetings = SimpleNamespace(
            sender=lambda route, make: self._meet(route.receiver, on_device),
            receiver=lambda route, make: self._meet(route.sender, on_device),
        )
        attempt: Any = Attempt(SimpleNamespace(), store, meetings, is_over=lambda: self.is_over)  # type: ignore[arg-type]
        debug = SimpleNamespace(slow_stage=-1, slow_link_s=0)
        plan: Any = SimpleNamespace(
            placement=placement,
            config=SimpleNamespace(link=None, debug=debug, faults=SimpleNamespace(timeout_s=timeout_s)),
            layout_after=lambda stage, share: None,
        )
        self.links = StageLinks(plan, attempt, self.status, torch.device("cpu"))
        if seat.stage:
            self.links.receiver(2)
        self.links.sender()

    def _meet(self, peer: Seat, on_device: bool) -> End:
        self.peers.append(peer)
        return End(on_device)


@pytest.mark.parametrize("replicas", [(1, 1, 1, 1), (2, 3, 1)])
def test_whoever_is_let_go_has_no_neighbour_that_still_connects(replicas: tuple[int, ...]) -> None:
    placement, store = Placement(replicas, len(replicas)), HashStore()
    seats = list(placement.seats())
    connected: set[int] = set()
    lock = threading.Lock()

    def connect(seat: Seat) -> bool:
        time.sleep(0.02 * (seat.rank % 3))
        process = Process(placement, seat, store)
        with lock:
            connected.add(seat.rank)
        process.links.wait_for_neighbours()
        return {peer.rank for peer in process.peers} <= connected and bool(process.peers)

    with ThreadPoolExecutor(len(seats)) as threads:
        assert all(threads.map(connect, seats))


def pair(**settings: Any) -> tuple[Process, Store]:
    """The first of two processes, and the store of both; the other one has not come."""
    placement, store = Placement((1, 1), 2), HashStore()
    return Process(placement, next(iter(placement.seats())), store, **settings), store


def test_a_neighbour_that_does_not_connect_in_time_is_named() -> None:
    process, _ = pair(timeout_s=SHORT_S)
    with pytest.raises(TimeoutError, match=r"waited 0.3 s for stage 1 to connect its links"):
        process.links.wait_for_neighbours()
    assert (process.status.activity, process.status.peer) == (Activity.CONNECT, "stage 1")


def test_the_wait_ends_with_the_attempt() -> None:
    process, _ = pair()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(process.links.wait_for_neighbours)
        process.is_over = True
        with pytest.raises(GivenUp):
            waiting.result(TIMEOUT_S)


def test_a_process_that_comes_back_alone_is_not_kept_waiting_by_one_that_trains_already() -> None:
    placement, store = Placement((1, 1), 2), HashStore()
    processes = [Process(placement, seat, store) for seat in placement.seats()]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda process: process.links.wait_for_neighbours(), processes))
    Process(placement, next(iter(placement.seats())), store, timeout_s=SHORT_S).links.wait_for_neighbours()


def test_nobody_waits_for_links_that_meet_on_no_device() -> None:
    process, store = pair(on_device=False, timeout_s=0.0)
    process.links.wait_for_neighbours()
    assert store.num_keys() == 0
