"""Attempts at a run: where each begins, how its links are made, and how a process takes part in one or several."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from torch.distributed import Store

from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.recovery.member import Member
from greedypipe.workers.ending import AtOnce, Ending
from greedypipe.workers.links.interface import Receiver, Sender
from greedypipe.workers.links.patience import GivenUp, Patience
from greedypipe.workers.placement import Route, Seat, stage_name
from greedypipe.workers.telemetry.board import wait_for
from greedypipe.workers.telemetry.records import Beginning
from greedypipe.workers.telemetry.results import StageReport
from greedypipe.workers.telemetry.topics import ORIGIN, Topic, report_of

T = TypeVar("T")
End = TypeVar("End")
Make = Callable[[Store, Patience], End]
"""Builds one end of a link, which finds the other end through a store."""


class RunIsOver(Exception):
    """Nothing is left to do for this process: it died when its part of the run was done, and was started again."""


class Meetings(ABC):
    """Where and how the two ends of a link meet."""

    @abstractmethod
    def receiver(self, route: Route, make: Make[Receiver]) -> Receiver:
        """Builds the downstream end with `make`; blocks until the upstream end has connected."""

    @abstractmethod
    def sender(self, route: Route, make: Make[Sender]) -> Sender:
        """Builds the upstream end, likewise."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at the run.

    Attributes:
        store: Shared by the processes in this attempt alone.
        is_over: Returns True once the attempt is pointless.
        ending: Behaviour of this process after the end of its stream.
    """

    origin: Origin
    store: Store
    meetings: Meetings
    number: int = 0
    is_over: Callable[[], bool] = lambda: False
    ending: Ending = field(default_factory=AtOnce)

    @property
    def report_topic(self) -> Topic[StageReport]:
        """The topic under which processes post their reports of this attempt."""
        return report_of(self.number)

    def wait_for(self, look: Callable[[], T | None], timeout_s: float, whom: Callable[[], str]) -> T:
        """As `workers.telemetry.board.wait_for`, but raises GivenUp when the attempt is over."""

        def look_while_it_lasts() -> T | None:
            if self.is_over():
                raise GivenUp("a process has been started again")
            return look()

        return wait_for(look_while_it_lasts, timeout_s, whom)


def shared_origin(member: Member) -> Origin:
    """Where the run begins, which rank 0 finds and all others wait for.

    Raises:
        TimeoutError: Rank 0 has not said.
    """
    if member.find_origin:
        member.board.post(ORIGIN, 0, member.find_origin().note())
    # No blocking call: heartbeats go over the same connection.
    look: Callable[[], Beginning | None] = lambda: next(iter(member.board.posted(ORIGIN)), None)  # noqa: E731
    return Origin.read(wait_for(look, member.timeout_s, lambda: f"{stage_name(0)} to say where to begin"))


class OneMeeting(Meetings):
    """Makes every link once per attempt.

    Args:
        is_over: Returns True once the attempt is pointless.
    """

    def __init__(self, store: Store, seat: Seat, timeout_s: float, is_over: Callable[[], bool]) -> None:
        self._store = store
        self._seat = seat
        self._timeout_s = timeout_s
        self._is_over = is_over

    def receiver(self, route: Route, make: Make[Receiver]) -> Receiver:
        return make(self._store, Patience(route.sender.name, self._timeout_s, self._is_over))

    def sender(self, route: Route, make: Make[Sender]) -> Sender:
        return make(self._store, Patience(route.receiver.name, self._timeout_s, self._is_over))


class Recovery(ABC):
    """How a process takes part in a run whose processes may fail."""

    @abstractmethod
    def begin(self) -> Attempt:
        """Joins the others for the next attempt; blocks until it can begin.

        Raises:
            TimeoutError: A process did not join; names it.
            RunIsOver: There is no next attempt.
        """

    @abstractmethod
    def go_back(self, error: ConnectionError) -> None:
        """Called when an attempt has failed because a neighbour was lost; blocks until another attempt can begin.

        Raises:
            ConnectionError: `error`, if there is no other attempt.
        """

    @abstractmethod
    def leave(self, report: StageReport) -> None:
        """Blocks until no other process needs this one; raises ConnectionError if another attempt is needed."""

    @abstractmethod
    def say_last(self, report: StageReport) -> None:
        """Called after the last other use of the store: its host may exit as soon as it has all reports."""


class OnceForAll(Recovery):
    """One attempt; a process leaves as soon as it is done."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def begin(self) -> Attempt:
        member = self._member
        meetings = OneMeeting(member.store, member.seat, member.timeout_s, lambda: False)
        return Attempt(shared_origin(member), member.store, meetings)

    def go_back(self, error: ConnectionError) -> None:
        raise error

    def leave(self, report: StageReport) -> None:
        """No-op: in a run of one attempt no process comes back that could need this one."""

    def say_last(self, report: StageReport) -> None:
        if self._member.rank:
            self._member.board.post(report_of(0), self._member.rank, report)
