"""What a process does between the end of its stream and its own end: it leaves, or it stays for those that may come back."""

from collections.abc import Callable
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
