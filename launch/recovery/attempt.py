"""One attempt at a run: where it begins and how its links are made; and how a process takes part in one or several."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch.distributed import Store

from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.recovery.member import Member
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
"""Builds an end of a link that finds the other one in a store."""


class RunIsOver(Exception):
    """This process has nothing left to do: it died after its part of the run was done, and was started again."""


class Meetings(ABC):
    """Where and how the two ends of a link meet."""

    @abstractmethod
    def receiver(self, route: Route, make: Make[Receiver]) -> Receiver:
        """Builds the downstream end by `make`; blocks until the upstream one is there."""

    @abstractmethod
    def sender(self, route: Route, make: Make[Sender]) -> Sender:
        """Builds the upstream end."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at the run.

    Attributes:
        store: For what the processes of this attempt tell each other, and no other one.
        is_over: Whether it has become pointless.
    """

    origin: Origin
    store: Store
    meetings: Meetings
    number: int = 0
    is_over: Callable[[], bool] = lambda: False

    @property
    def report_topic(self) -> Topic[StageReport]:
        """Where on the board the processes report when they have done it."""
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
    """Every link is made once in an attempt.

    Args:
        is_over: Whether the attempt is.
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
    """How one process takes part in a run in which processes may fail."""

    @abstractmethod
    def begin(self) -> Attempt:
        """Joins the others for the next attempt; blocks until it can begin.

        Raises:
            TimeoutError: Somebody did not come; says who.
            RunIsOver: There is no next one.
        """

    @abstractmethod
    def go_back(self, error: ConnectionError) -> None:
        """Called when an attempt was lost by the loss of a neighbour: blocks until another one can begin.

        Raises:
            ConnectionError: `error`, where there is no other one.
        """

    @abstractmethod
    def leave(self, report: StageReport) -> None:
        """Waits until nobody needs this process any more; raises ConnectionError where another attempt is needed."""

    @abstractmethod
    def say_last(self, report: StageReport) -> None:
        """Called when nothing else will be asked of the store, whose host may be gone as soon as it has all reports."""


class OnceForAll(Recovery):
    """There is one attempt, and whoever is done leaves."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def begin(self) -> Attempt:
        member = self._member
        meetings = OneMeeting(member.store, member.seat, member.timeout_s, lambda: False)
        return Attempt(shared_origin(member), member.store, meetings)

    def go_back(self, error: ConnectionError) -> None:
        raise error

    def leave(self, report: StageReport) -> None:
        """No-op: nobody comes back in a run of one attempt, so nobody can need this process again."""

    def say_last(self, report: StageReport) -> None:
        if self._member.rank:
            self._member.board.post(report_of(0), self._member.rank, report)
