"""Which processes have stopped posting their status."""

import time
from collections.abc import Callable, Sequence

from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.records import StageRow


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
