"""One process's view of all stages: reads the board and shows it, logs it, keeps the evaluations."""

import contextlib
import json
import threading
from collections.abc import Sequence
from typing import Any, Protocol, Self

from launch.evaluations import combined, is_whole
from launch.preflight import Plan
from launch.resume import Origin
from launch.screen import Screen
from launch.status import write_status
from launch.tables import evaluation_line
from workers.board import Board

REFRESH_S = 0.5


class Tracker(Protocol):
    """Where the figures of a run go besides its folder."""

    def log(self, stage: int, row: dict[str, Any]) -> None:
        """Takes the newest status of a stage; of its first replica where there are several."""

    def log_evaluation(self, evaluation: dict[str, Any]) -> None:
        """Takes the accuracies of one evaluation pass."""

    def close(self) -> None:
        """Writes what is left."""


class Monitor:
    """Runs in one process of a run, in a thread.

    Shows on the screen what every process is doing, and each evaluation, which it keeps in metrics/evaluations.jsonl.
    """

    def __init__(self, board: Board, plan: Plan, origin: Origin, trackers: Sequence[Tracker], screen: Screen) -> None:
        self._board = board
        self._plan = plan
        self._trackers = trackers
        self._screen = screen
        self._folder = origin.folder
        self._labels = [seat.label for seat in plan.placement.seats()]
        self._epochs = self._expected_epochs(origin)
        path = origin.folder / "metrics" / "evaluations.jsonl"
        self.evaluations = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self._file = path.open("a", buffering=1)
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
        """Shows nothing more, so that others may print; idempotent."""
        self._stopping.set()
        self._screen.release()

    def _run(self) -> None:
        while not self._stopping.wait(REFRESH_S):
            self._step()

    def _step(self) -> None:
        rows = self._board.read("status")
        self.keep_evaluations()
        total_steps = self._plan.blueprint.total_steps
        with contextlib.suppress(OSError):  # a full disk must not end the run
            write_status(self._folder, rows, self._labels, total_steps)
        self._screen.show(rows, self._labels, total_steps)
        for tracker in self._trackers:
            for row in rows:
                if row and row["loss"] and row["seat"]["replica"] == 0:
                    tracker.log(row["stage"], row)

    def keep_evaluations(self) -> None:
        """Writes down and shows the passes that have come to their end since the last call; any thread may call it."""
        with self._keeping:
            self._read_evaluations()

    def _read_evaluations(self) -> None:
        # An earlier pass that some stage has missed will not be made up for.
        whole = [epoch for epoch in self._epochs if self._board.is_complete(f"evaluation/{epoch}") and self._is_whole(epoch)]
        for epoch in whole:
            evaluation = combined(self._parts(epoch))
            self._epochs = [later for later in self._epochs if later > epoch]
            self.evaluations.append(evaluation)
            self._file.write(json.dumps(evaluation) + "\n")
            self._screen.print(evaluation_line(evaluation, self._plan.config.training.epochs))
            for tracker in self._trackers:
                tracker.log_evaluation(evaluation)

    def _is_whole(self, epoch: int) -> bool:
        return is_whole(self._parts(epoch), self._plan.data.test_samples)

    def _parts(self, epoch: int) -> list[dict[str, Any]]:
        return [part for part in self._board.read(f"evaluation/{epoch}") if part]

    def _expected_epochs(self, origin: Origin) -> list[int]:
        """Those that the feed still evaluates (workers.feed.Feed): the last one due may have been lost with its run."""
        epochs, every = self._plan.config.training.epochs, self._plan.config.evaluation.every_epochs
        due = origin.batch_id // self._plan.blueprint.task.steps_per_epoch
        expected = [*range(every, epochs, every), epochs]
        return [epoch for epoch in expected if epoch >= due - due % every and epoch not in origin.evaluated]
