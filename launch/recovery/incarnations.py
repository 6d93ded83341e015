"""How often the processes of a run have been started again."""

from greedypipe.launch.recovery.member import Member
from greedypipe.workers.telemetry.topics import INCARNATION


class Incarnations:
    """How often each process has been started again alone, as it says itself."""

    def __init__(self, member: Member) -> None:
        self._board = member.board
        self._board.post(INCARNATION, member.rank, member.incarnation)

    def read(self) -> list[int]:
        """By rank; 0 for those that have not come yet."""
        return [number or 0 for number in self._board.read(INCARNATION)]
