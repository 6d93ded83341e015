"""How often the processes of a run have been restarted alone."""

from greedypipe.launch.recovery.member import Member
from greedypipe.workers.telemetry.topics import INCARNATION


class Incarnations:
    """How often each process has been restarted alone, as posted by itself."""

    def __init__(self, member: Member) -> None:
        self._board = member.board
        self._board.post(INCARNATION, member.rank, member.incarnation)

    def read(self) -> list[int]:
        """By rank; 0 for processes that have not joined yet."""
        return [number or 0 for number in self._board.read(INCARNATION)]
