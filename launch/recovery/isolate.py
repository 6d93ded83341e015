"""What happens to a run when one of its processes dies: where it begins again, and how links are reconnected.

| policy          | a process that dies                        | the others                                           |
|-----------------|--------------------------------------------|------------------------------------------------------|
| restart         | ends the run                               | end; the launcher may restart all of them            |
| isolate, FIFO   | is restarted alone by its keeper           | return in place to the newest complete checkpoint    |
| isolate, replay | the same; begins at the newest checkpoint  | continue; only the links to it are reconnected       |

With FIFO, going back was preferred to logging what has been sent since: it repeats the steps since the last mark, but needs
no memory and no copy on the data path. All stages continue from one mark, so the result is the same to the bit.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Generic

from torch.distributed import PrefixStore

from greedypipe.launch.checkpoints.resume import Origin, find_again
from greedypipe.launch.recovery.attempt import (
    Attempt,
    End,
    Make,
    Meetings,
    OnceForAll,
    OneMeeting,
    Recovery,
    RunIsOver,
    shared_origin,
)
from greedypipe.launch.recovery.incarnations import Incarnations
from greedypipe.launch.recovery.member import Member
from greedypipe.launch.recovery.own_origin import own_origin
from greedypipe.launch.recovery.together import Together
from greedypipe.workers.links.interface import Receiver, Sender
from greedypipe.workers.links.patience import GivenUp, Patience
from greedypipe.workers.links.reconnecting import MendingReceiver, MendingSender
from greedypipe.workers.placement import Route, Seat
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.board import wait_for
from greedypipe.workers.telemetry.results import StageReport
from greedypipe.workers.telemetry.topics import Topic, done_with, origin_of, ready_for, report_of


class GoingBack(Recovery):
    """After every restart of a process, all of them return to the newest complete checkpoint.

    An attempt's number is the number of restarts so far, of all processes together.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._incarnations = Incarnations(member)
        self._number = -1

    def begin(self) -> Attempt:
        while True:
            self._number = sum(self._incarnations.read())
            try:
                return self._join(self._number)
            except GivenUp:
                continue

    def _join(self, number: int) -> Attempt:
        member = self._member
        ready = ready_for(number)
        member.board.post(ready, member.rank, True)
        # Every process must have stopped writing before rank 0 trims the records.
        self._wait(lambda: member.board.is_complete(ready), ready, "join")
        if member.find_origin:
            is_first = number == 0 or member.incarnation
            find = member.find_origin if is_first else partial(find_again, member.plan, member.folder)
            member.board.post(origin_of(number), 0, find().note())
        self._wait(lambda: bool(member.board.posted(origin_of(number))), None, "say where to begin")
        (told,) = member.board.posted(origin_of(number))
        store = PrefixStore(f"attempt{number}", member.store)
        meetings = OneMeeting(store, member.seat, member.timeout_s, self._is_over)
        return Attempt(Origin.read(told), store, meetings, number, self._is_over)

    def go_back(self, error: ConnectionError) -> None:
        self._member.status.now(Activity.WAIT_RETURN)
        deadline = time.monotonic() + self._member.timeout_s
        while not self._is_over():
            if time.monotonic() > deadline:
                raise error
            time.sleep(0.02)

    def leave(self, report: StageReport) -> None:
        member = self._member
        if member.rank == 0:
            member.board.post(done_with(self._number), 0, True)
            return
        member.board.post(report_of(self._number), member.rank, report)
        member.status.now(Activity.WAIT_END)
        self._wait(lambda: bool(member.board.posted(done_with(self._number))), None, "end")

    def say_last(self, report: StageReport) -> None:
        """No-op: rank 0 has all reports, or it would not have released this process."""

    def _raise_if_all_is_done(self) -> None:
        earlier = range(self._number)
        if any(self._member.board.posted(done_with(number)) for number in earlier):
            raise RunIsOver

    def _is_over(self) -> bool:
        return sum(self._incarnations.read()) > self._number

    def _wait(self, is_there: Callable[[], bool], topic: Topic[bool] | None, what: str) -> None:
        """Waits for the other processes; gives up when another attempt begins."""

        def look() -> bool | None:
            if is_there():
                return True
            self._raise_if_all_is_done()
            if self._is_over():
                raise GivenUp("a process has been started again")
            return None

        def missing() -> str:
            seats = list(self._member.plan.placement.seats())
            entries = self._member.board.read(topic) if topic else [None] * len(seats)
            absent = [seat.name for seat, entry in zip(seats, entries, strict=True) if entry is None]
            return f"{', '.join(absent if topic else absent[:1])} to {what}"

        wait_for(look, self._member.timeout_s, missing)


class GoingOn(Recovery):
    """Processes that are not struck continue. One that has been restarted begins at the newest complete checkpoint, or at
    its own end if it has saved that. All leave together (launch.recovery.together)."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._incarnations = Incarnations(member)
        self._ending = Together(member, self._incarnations)

    def begin(self) -> Attempt:
        if self._ending.is_over():
            raise RunIsOver
        member = self._member
        origin = own_origin(member) if member.incarnation else shared_origin(member)
        meetings = RepeatedMeetings(member, self._incarnations, self._ending.is_over)
        return Attempt(origin, member.store, meetings, ending=self._ending)

    def go_back(self, error: ConnectionError) -> None:
        raise error

    def leave(self, report: StageReport) -> None:
        if self._member.rank == 0:
            self._ending.let_go()

    def say_last(self, report: StageReport) -> None:
        """No-op: the report was posted at the end of the stream."""


class RepeatedMeetings(Meetings):
    """Makes a link anew whenever one of its ends has been restarted."""

    def __init__(self, member: Member, incarnations: Incarnations, is_over: Callable[[], bool]) -> None:
        self._member = member
        self._incarnations = incarnations
        self._is_over = is_over

    def receiver(self, route: Route, make: Make[Receiver]) -> Receiver:
        return MendingReceiver(self._rejoin(route, route.sender, make))

    def sender(self, route: Route, make: Make[Sender]) -> Sender:
        return MendingSender(self._rejoin(route, route.receiver, make))

    def _rejoin(self, route: Route, peer: Seat, make: Make[End]) -> "Rejoin[End]":
        return Rejoin(self._member, self._incarnations, route, peer, make, is_over=self._is_over)


class Rejoin(Generic[End]):
    """Makes one end of a link each time it is called; the two ends meet at another place each time.

    A place is the pair of their incarnations. So neither end waits at a place where they have met before, and an end whose
    peer is restarted during its wait moves to the next place.

    Args:
        peer: The process at the other end of the route.
        make: Builds the end.
        is_over: Returns True once the run is over.
    """

    def __init__(
        self,
        member: Member,
        incarnations: Incarnations,
        route: Route,
        peer: Seat,
        make: Make[End],
        *,
        is_over: Callable[[], bool],
    ) -> None:
        self._member = member
        self._incarnations = incarnations
        self._route = route
        self._peer = peer
        self._make = make
        self._is_over = is_over
        self._met: list[tuple[int, int]] = []

    def __call__(self) -> End:
        """Blocks until the peer is there.

        Raises:
            TimeoutError: It has not come back in time.
            RunIsOver: The run has ended meanwhile.
        """
        timeout_s = self._member.timeout_s
        wait_for(lambda: self._goes_on(self._place()), timeout_s, lambda: f"{self._peer.name} to come back")
        while True:
            place = self._place()
            store = PrefixStore("met{}-{}".format(*place), self._member.store)
            try:
                end = self._make(store, Patience(self._peer.name, timeout_s, partial(self._has_left, place)))
            except GivenUp:
                if self._is_over():
                    raise RunIsOver from None
                continue
            self._met.append(place)
            return end

    def _goes_on(self, place: tuple[int, int]) -> bool | None:
        """True if the ends may meet at a place; None while they have met there before."""
        if self._is_over():
            raise RunIsOver
        return None if place in self._met else True

    def _place(self) -> tuple[int, int]:
        numbers = self._incarnations.read()
        return numbers[self._route.sender.rank], numbers[self._route.receiver.rank]

    def _has_left(self, place: tuple[int, int]) -> bool:
        """Whether one of the ends has moved on."""
        return self._place() != place or self._is_over()


def recovery_for(member: Member) -> Recovery:
    """The recovery that `faults.policy` and `buffers.policy` ask for."""
    if member.plan.config.faults.policy == "restart":
        return OnceForAll(member)
    return GoingBack(member) if member.plan.config.buffers.policy == "fifo" else GoingOn(member)
