"""What a process does after the end of its stream: it leaves, or stays for processes that may come back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from greedypipe.workers.telemetry.results import StageReport


class Ending(Protocol):
    """How a process ends, in one attempt at the run."""

    stays: bool
    """Whether the stream may go on after its end."""

    def restarts(self) -> int:
        """Number of restarts so far, of all processes together."""

    def report(self, report: StageReport) -> None:
        """Called at every end of the stream, after this process has saved its blocks."""

    def stay(self, is_needed: Callable[[], bool]) -> bool:
        """Called after the end of the stream, before this process leaves.

        Returns:
            Whether this process is needed again. Blocks until it is, or until no process can need it any more.

        Raises:
            TimeoutError: Neither happened in time; names the processes that have not ended.
        """


class AtOnce:
    """Leaves at the end of the stream."""

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
        may: Called before every training batch beyond the step budget; True ends the stream.
        must: Called before every training batch; True ends the stream at once, with a mark and no evaluation.
        ending: Decides whether the stream continues after its end, for a process that has come back and missed it.
    """

    may: Callable[[], bool] = lambda: True
    must: Callable[[], bool] = lambda: False
    ending: Ending = field(default_factory=AtOnce)
