"""Which processes have stopped posting their status, and which keepers are gone."""

import time
from collections.abc import Callable, Sequence

from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.machine import is_alive
from greedypipe.workers.telemetry.records import KeeperRow, StageRow
from greedypipe.workers.telemetry.topics import KEEPER, STATUS


class Pulses:
    """Tells which processes have stopped posting, by this process's own clock alone."""

    def __init__(self, num_processes: int, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._seen: list[tuple[StageRow | None, float]] = [(None, clock())] * num_processes
        self._looked = clock()

    def silent(self, rows: Sequence[StageRow | None]) -> list[StageRow]:
        """Rows that have not changed for longer than the timeout, of processes that have begun and not ended."""
        now = self._clock()
        was_asleep, self._looked = now - self._looked > self._timeout_s / 2, now
        result = []
        for rank, row in enumerate(rows):
            last, since = self._seen[rank]
            # After a sleep of our own (a suspended machine) everybody looks silent: start again.
            if row != last or row is None or was_asleep:
                self._seen[rank] = (row, now)
            elif now - since > self._timeout_s and row.activity != Activity.DONE:
                result.append(row)
        return result


class KeptRanks:
    """The keepers of this host's ranks (launch.recovery.keeper); they post nothing but who they are."""

    def __init__(self, board: Board, host: str) -> None:
        self._board = board
        self._host = host
        self._keepers: list[KeeperRow | None] = [None] * board.num_processes

    def lost(self) -> KeeperRow | None:
        """A keeper that is gone though its rank has not ended; None where there is none. Does not block."""
        if None in self._keepers:
            self._keepers = self._board.read(KEEPER)
        gone = {rank: row for rank, row in enumerate(self._keepers) if row and self._is_gone(row)}
        if not gone:
            return None
        # One that ends in peace says so just before, and its rank has ended before that.
        ended = [row is not None and row.activity == Activity.DONE for row in self._board.read(STATUS)]
        self._keepers = self._board.read(KEEPER)
        return next((row for rank, row in gone.items() if not ended[rank] and row == self._keepers[rank]), None)

    def _is_gone(self, row: KeeperRow) -> bool:
        return row.host == self._host and row.pid > 0 and not is_alive(row.pid)
