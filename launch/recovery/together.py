"""The end of a run whose processes may be restarted alone: no process leaves before all have reported.

A process that dies near the end of its stream must repeat its last evaluation, its end and its final save. It needs its
neighbours for that: stage 0 to continue the stream and end it again, the others to pass it through.
"""

from collections.abc import Callable

from greedypipe.launch.recovery.incarnations import Incarnations
from greedypipe.launch.recovery.member import Member
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.board import wait_for
from greedypipe.workers.telemetry.results import StageReport
from greedypipe.workers.telemetry.topics import done_with, report_of


class Together:
    """Stays until rank 0 releases all processes; rank 0 itself, until the newest incarnation of every rank has reported."""

    stays = True

    def __init__(self, member: Member, incarnations: Incarnations) -> None:
        self._member = member
        self._board = member.board
        self._incarnations = incarnations

    def restarts(self) -> int:
        return sum(self._incarnations.read())

    def report(self, report: StageReport) -> None:
        self._board.post(report_of(0), self._member.rank, report)

    def stay(self, is_needed: Callable[[], bool]) -> bool:
        self._member.status.now(Activity.WAIT_END)

        def look() -> bool | None:
            if self._may_leave():
                return False
            return True if is_needed() else None

        return wait_for(look, self._member.timeout_s, self._whom)

    def is_over(self) -> bool:
        """Whether rank 0 has released all processes."""
        return bool(self._board.posted(done_with(0)))

    def let_go(self) -> None:
        """Releases all processes; called by rank 0 when it needs none of them any more."""
        self._board.post(done_with(0), 0, True)

    def _whom(self) -> str:
        leader = next(self._member.plan.placement.seats()).name
        return f"{', '.join(self._absent()) or leader} to end"

    def _may_leave(self) -> bool:
        return self.is_over() if self._member.rank else not self._absent()

    def _absent(self) -> list[str]:
        seats, reports = self._member.plan.placement.seats(), self._board.read(report_of(0))
        looked = zip(seats, reports, self._incarnations.read(), strict=True)
        return [seat.name for seat, report, number in looked if report is None or report.restarts != number]
