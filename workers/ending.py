"""What a process does between the end of its stream and its own end: it leaves, or it stays for those that may come back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from greedypipe.workers.telemetry.results import StageReport


class Ending(Protocol):
    """How one process ends in one attempt at the run."""

    stays: bool
    """Whether the stream may go on after its end."""

    def restarts(self) -> int:
        """How often processes of the run have been started again alone, all together."""

    def report(self, report: StageReport) -> None:
        """Called at every end of the stream, when all that this process has learned is saved."""

    def stay(self, is_needed: Callable[[], bool]) -> bool:
        """Called after the end of the stream, before this process leaves.

        Returns:
            Whether this process is needed again. Blocks until it is, or until nobody will need it any more.

        Raises:
            TimeoutError: Neither came in time; says who has not come to its end.
        """


class AtOnce:
    """Whoever has come to the end of the stream leaves."""

    stays = False

    def restarts(self) -> int:
        return 0

    def report(self, report: StageReport) -> None:
        """No-op: the report is posted when the process leaves (launch.recovery.attempt.Recovery)."""

    def stay(self, is_needed: Callable[[], bool]) -> bool:
        return False


@dataclass(frozen=True)
class Stops:
    """When the stream of stage 0 ends.

    Attributes:
        may: Asked from the end of the step budget on, before each further training batch; True ends the stream.
        must: Asked before every training batch; True ends the stream at once, with a mark and no evaluation.
        ending: Decides whether the stream goes on after its end, where a process has come back that has missed it.
    """

    may: Callable[[], bool] = lambda: True
    must: Callable[[], bool] = lambda: False
    ending: Ending = field(default_factory=AtOnce)
