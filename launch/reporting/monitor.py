"""One process's view of all stages: reads the board, shows it, passes it to the trackers, and records the evaluations."""

import contextlib
import itertools
import threading
from collections import deque
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
from greedypipe.workers.jsonl import LinesFile, salvage_lines, write_lines
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.records import Passed, StageRow
from greedypipe.workers.telemetry.results import EVALUATIONS, Evaluation
from greedypipe.workers.telemetry.topics import PASSED, STATUS, evaluation_of

REFRESH_S = 0.5


class Monitor:
    """Shows what every process is doing, and each evaluation, which it records in metrics/evaluations.jsonl.

    Runs in a thread of rank 0.

    Args:
        folder: Folder of the run.
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
        self._epochs = deque(epochs)
        self._passed: list[Passed | None] = []
        self._tracked: dict[int, dict[int, float]] = {}
        self._path = folder / "metrics" / "evaluations.jsonl"
        self.evaluations = salvage_lines(self._path, EVALUATIONS)
        self._unseen: deque[Evaluation] = deque()
        """Recorded, but neither shown nor tracked yet: that is for the monitor's own thread."""
        self._file = LinesFile(self._path)
        self._keeping = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()
        with contextlib.ExitStack() as ends:
            ends.callback(self._file.close)
            for tracker in self._trackers:
                ends.callback(tracker.close)
            ends.callback(self._screen.release)
            self._step()
            self._correct_last()

    def release_screen(self) -> None:
        """Stops showing anything, so that others may print; idempotent."""
        self._stopping.set()
        self._screen.release()

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # a store that is gone is the supervisor's matter
            while not self._stopping.wait(REFRESH_S):
                self._step()

    def _step(self) -> None:
        rows = self._board.read(STATUS)
        self.keep_evaluations()
        self._show_evaluations()
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
        """Records the passes that have ended since the last call; any thread may call it."""
        with self._keeping:
            self._read_evaluations()

    def _read_evaluations(self) -> None:
        passed = self._board.read(PASSED)
        if passed == self._passed:
            return
        self._passed = passed
        # Nobody looks at a pass that some process has not come to the end of: it cannot be whole.
        newest = min(one.epoch if one else -1 for one in passed)
        for epoch in list(itertools.takewhile(lambda epoch: epoch <= newest, self._epochs)):
            if evaluation := self._whole(epoch):
                self._keep(evaluation)

    def _keep(self, evaluation: Evaluation) -> None:
        # An earlier pass that some stage has missed will not be made up for.
        while self._epochs and self._epochs[0] <= evaluation.epoch:
            self._epochs.popleft()
        self.evaluations.append(evaluation)
        self._file.append(evaluation)
        self._unseen.append(evaluation)

    def _show_evaluations(self) -> None:
        while self._unseen:
            evaluation = self._unseen.popleft()
            self._screen.print(evaluation_line(evaluation, self._plan.blueprint.epochs))
            best = max(known.blocks[-1] for known in list(self.evaluations) if known.epoch <= evaluation.epoch)
            for tracker in self._trackers:
                tracker.log_evaluation(evaluation, best)

    def _correct_last(self) -> None:
        """The last pass is repeated where a process has come back after it, and then it is the repetition that counts."""
        last = self.evaluations[-1] if self.evaluations else None
        if last is None or last.epoch != self._plan.blueprint.epochs:
            return
        again = self._whole(last.epoch)
        if again is not None and again != last:
            self.evaluations[-1] = again
            self._unseen.append(again)
            self._show_evaluations()
            with contextlib.suppress(OSError):  # a full disk must not end the run
                write_lines(self._path, self.evaluations)

    def _whole(self, epoch: int) -> Evaluation | None:
        """The result of a pass that every process has seen all of."""
        parts = self._board.complete(evaluation_of(epoch))
        return combined(parts) if parts and is_whole(parts, self._plan.data.evaluated_samples) else None


def expected_epochs(plan: Plan, batch_id: int, evaluated: Sequence[int]) -> list[int]:
    """Epochs that a run will evaluate if it starts at `batch_id` and has `evaluated` some before (workers.feed.Feed).

    The last evaluation due before `batch_id` may have been lost with the run that stopped there.
    """
    epochs, every = plan.blueprint.epochs, plan.config.evaluation.every_epochs
    due = batch_id // plan.blueprint.steps_per_epoch
    expected = [*range(every, epochs, every), epochs]
    return [epoch for epoch in expected if epoch >= due - due % every and epoch not in evaluated]
