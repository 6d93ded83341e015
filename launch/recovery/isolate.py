"""What becomes of a run when a process of it dies: how often it is begun, from where, and how links are made again.

| policy          | a process that dies                        | the others                                           |
|-----------------|--------------------------------------------|------------------------------------------------------|
| restart         | ends the run                               | end; the launcher may start all of them again        |
| isolate, FIFO   | is started again alone, by its keeper      | go back, in place, to the newest complete checkpoint |
| isolate, replay | the same; begins at the newest checkpoint  | go on; only the links to it are made again           |

With FIFO going back is chosen over a log of what was sent since: it costs the steps since the last mark, but no memory and
no copy on the way of the data, and all stages stand at one mark again, so that the result is the same to the bit.
"""

import time
from collections.abc import Callable

from torch.distributed import PrefixStore

from greedypipe.launch.checkpoints.manifest import newest_valid
from greedypipe.launch.checkpoints.resume import Origin, find_origin
from greedypipe.launch.checkpoints.trim_records import keep_own_metrics
from greedypipe.launch.recovery.attempt import Attempt, End, Make, Meetings, OnceForAll, OneMeeting, Policy, RunIsOver
from greedypipe.launch.recovery.member import Member
from greedypipe.workers.links.interface import Receiver, Sender
from greedypipe.workers.links.patience import GivenUp, Patience
from greedypipe.workers.links.reconnecting import MendingReceiver, MendingSender
from greedypipe.workers.placement import Route, Seat
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.board import wait_for
from greedypipe.workers.telemetry.records import StageReport
from greedypipe.workers.telemetry.topics import INCARNATION, ORIGIN, Topic, done_with, origin_of, ready_for, report_of


class GoingBack(Policy):
    """Whenever a process has been started again, all of them go back to the newest complete checkpoint.

    Attempts are numbered by how often processes have been started again, all of them together.
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
        member.board.post(ready, member.process.rank, True)
        # Nobody may still write what the first one is about to sort out.
        self._wait(lambda: member.board.is_complete(ready), ready, "join")
        if member.process.origin:
            find = member.process.origin if number == 0 or member.process.incarnation else self._find_again
            member.board.post(origin_of(number), 0, find().note())
        self._wait(lambda: bool(member.board.posted(origin_of(number))), None, "say where to begin")
        (told,) = member.board.posted(origin_of(number))
        store = PrefixStore(f"attempt{number}", member.process.store)
        meetings = OneMeeting(store, member.status.seat, member.timeout_s, self._is_over)
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
        if member.process.rank == 0:
            member.board.post(done_with(self._number), 0, True)
            return
        member.board.post(report_of(self._number), member.process.rank, report)
        member.status.now(Activity.WAIT_END)
        self._wait(lambda: bool(member.board.posted(done_with(self._number))), None, "end")

    def say_last(self, report: StageReport) -> None:
        """All has been said."""

    def _find_again(self) -> Origin:
        return find_origin(None, self._member.plan, self._member.folder, lambda text: print(text, flush=True))

    def _raise_if_all_is_done(self) -> None:
        earlier = range(self._number)
        if any(self._member.board.posted(done_with(number)) for number in earlier):
            raise RunIsOver

    def _is_over(self) -> bool:
        return sum(self._incarnations.read()) > self._number

    def _wait(self, is_there: Callable[[], bool], topic: Topic[bool] | None, what: str) -> None:
        """Waits for the other processes, as long as no other attempt has begun."""

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


class GoingOn(Policy):
    """Whoever is not struck goes on; one that has been started again begins at the newest complete checkpoint."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._incarnations = Incarnations(member)

    def begin(self) -> Attempt:
        member = self._member
        if member.process.rank and member.board.read(report_of(0))[member.process.rank] is not None:
            raise RunIsOver
        if member.process.incarnation:
            origin = self._own_origin()
        else:
            find = member.process.origin
            origin = Origin.read(member.board.share(ORIGIN, find().note() if find else None))
        return Attempt(origin, member.process.store, RepeatedMeetings(member, self._incarnations))

    def go_back(self, error: ConnectionError) -> None:
        raise error

    def leave(self, report: StageReport) -> None:
        if self._member.process.rank:
            self._member.board.post(report_of(0), self._member.process.rank, report)

    def say_last(self, report: StageReport) -> None:
        """All has been said."""

    def _own_origin(self) -> Origin:
        member = self._member
        found = newest_valid(member.folder, lambda text: print(text, flush=True))
        blocks = member.plan.placement.blocks_of(member.status.seat.stage)
        evaluated = keep_own_metrics(member.folder / "metrics", found and found[1], member.status.seat, blocks)
        where = f"batch {found[1].batch_id} of {found[0]}" if found else "its beginning"
        print(f"{member.status.seat.name} is back and goes on at {where}", flush=True)
        return Origin(member.folder, *(found or ()), evaluated=evaluated)


class Incarnations:
    """How often each process has been started again, as they say themselves."""

    def __init__(self, member: Member) -> None:
        self._board = member.board
        self._board.post(INCARNATION, member.process.rank, member.process.incarnation)

    def read(self) -> list[int]:
        """By rank; 0 for those that have not come yet."""
        return [number or 0 for number in self._board.read(INCARNATION)]


class RepeatedMeetings(Meetings):
    """A link is made again whenever one of its ends has been started again; each time its ends meet at another place."""

    def __init__(self, member: Member, incarnations: Incarnations) -> None:
        self._member = member
        self._incarnations = incarnations

    def receiver(self, route: Route, make: Make[Receiver]) -> Receiver:
        return MendingReceiver(self._connect(route, route.sender, make))

    def sender(self, route: Route, make: Make[Sender]) -> Sender:
        return MendingSender(self._connect(route, route.receiver, make))

    def _connect(self, route: Route, peer: Seat, make: Make[End]) -> Callable[[], End]:
        met: list[tuple[int, int]] = []
        timeout_s = self._member.timeout_s

        def pair() -> tuple[int, int]:
            numbers = self._incarnations.read()
            return numbers[route.sender.rank], numbers[route.receiver.rank]

        def connect() -> End:
            # Where they met before, nobody waits any more.
            wait_for(lambda: pair() not in met or None, timeout_s, lambda: f"{peer.name} to come back")
            while True:
                now = pair()
                try:
                    store = PrefixStore("met{}-{}".format(*now), self._member.process.store)
                    end = make(store, Patience(peer.name, timeout_s, lambda now=now: pair() != now))
                except GivenUp:
                    continue
                met.append(now)
                return end

        return connect


def policy_for(member: Member) -> Policy:
    """What `faults.policy` asks for with this kind of links."""
    if member.plan.config.faults.policy == "restart":
        return OnceForAll(member)
    return GoingBack(member) if member.plan.config.buffers.policy == "fifo" else GoingOn(member)
