"""One process's view of all stages: reads the board, shows it, passes it to the trackers, and records the evaluations."""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.reporting.screen import Screen
from greedypipe.launch.reporting.status_file import write_status
from greedypipe.launch.reporting.tables import evaluation_line
from greedypipe.launch.reporting.trackers import Tracker
from greedypipe.workers.evaluation import combined, is_whole
from greedypipe.workers.jsonl import line_of, read_lines
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.records import EvaluationPart, StageRow
from greedypipe.workers.telemetry.results import EVALUATIONS
from greedypipe.workers.telemetry.topics import STATUS, evaluation_of

REFRESH_S = 0.5


class Monitor:
    """Shows what every process is doing, and each evaluation, which it records in metrics/evaluations.jsonl.

    Runs in a thread of one process of a run.

    Args:
        folder: The run's.
        epochs: Epochs whose evaluation is still expected (`expected_epochs`).
    """

    def __init__(
        self,
        board: Board,
        plan: Plan,
        folder: Path,
        epochs: Sequence[int],
        trackers: Sequence[Tracker],
        screen: Screen,
    ) -> None:
        self._board = board
        self._plan = plan
        self._trackers = trackers
        self._screen = screen
        self._folder = folder
        self._labels = [seat.label for seat in plan.placement.seats()]
        self._epochs = list(epochs)
        self._tracked: dict[int, dict[int, float]] = {}
        path = folder / "metrics" / "evaluations.jsonl"
        self.evaluations = read_lines(path, EVALUATIONS)
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._keeping = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._step()
        self._screen.release()
        for tracker in self._trackers:
            tracker.close()
        self._file.close()

    def release_screen(self) -> None:
        """Stops showing anything, so that others may print; idempotent."""
        self._stopping.set()
        self._screen.release()

    def _run(self) -> None:
        while not self._stopping.wait(REFRESH_S):
            self._step()

    def _step(self) -> None:
        rows = self._board.read(STATUS)
        self.keep_evaluations()
        total_steps = self._plan.blueprint.total_steps
        with contextlib.suppress(OSError):  # a full disk must not end the run
            write_status(self._folder, rows, self._labels, total_steps)
        self._screen.show(rows, self._labels, total_steps)
        for row in rows:
            if row and row.seat.replica == 0 and row.loss != self._tracked.get(row.stage, {}):
                self._tracked[row.stage] = row.loss
                self._track(row, rows)

    def _track(self, row: StageRow, rows: Sequence[StageRow | None]) -> None:
        """Passes on the new figures of a stage: its first replica's, with the throughput of all of them."""
        replicas = [other for other in rows if other and other.stage == row.stage]
        whole = replace(row, samples_per_s=sum(replica.samples_per_s for replica in replicas))
        for tracker in self._trackers:
            tracker.log(whole)

    def keep_evaluations(self) -> None:
        """Records and shows the passes that have ended since the last call; any thread may call it."""
        with self._keeping:
            self._read_evaluations()

    def _read_evaluations(self) -> None:
        # A pass that a stage has missed is not repeated: a later one that is whole ends the wait for it.
        whole = [epoch for epoch in self._epochs if self._board.is_complete(evaluation_of(epoch)) and self._is_whole(epoch)]
        for epoch in whole:
            evaluation = combined(self._parts(epoch))
            self._epochs = [later for later in self._epochs if later > epoch]
            self.evaluations.append(evaluation)
            self._file.write(line_of(evaluation))
            self._screen.print(evaluation_line(evaluation, self._plan.config.training.epochs))
            best = max(known.blocks[-1] for known in self.evaluations)
            for tracker in self._trackers:
                tracker.log_evaluation(evaluation, best)

    def _is_whole(self, epoch: int) -> bool:
        return is_whole(self._parts(epoch), self._plan.data.test_samples)

    def _parts(self, epoch: int) -> list[EvaluationPart]:
        return self._board.posted(evaluation_of(epoch))


def expected_epochs(plan: Plan, batch_id: int, evaluated: Sequence[int]) -> list[int]:
    """Epochs that a run will evaluate if it starts at `batch_id` and has `evaluated` some before (workers.feed.Feed).

    The last evaluation due before `batch_id` may have been lost with the run that stopped there.
    """
    epochs, every = plan.config.training.epochs, plan.config.evaluation.every_epochs
    due = batch_id // plan.blueprint.steps_per_epoch
    expected = [*range(every, epochs, every), epochs]
    return [epoch for epoch in expected if epoch >= due - due % every and epoch not in evaluated]
