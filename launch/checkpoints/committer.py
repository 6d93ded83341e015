"""Makes checkpoints complete while the run goes on: the one process that writes manifests."""

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from greedypipe.launch.checkpoints.manifest import Manifest, checkpoints_of, commit, prune
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.workers.block_files import FINAL
from greedypipe.workers.evaluation import combined
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.machine import versions
from greedypipe.workers.telemetry.records import Saved
from greedypipe.workers.telemetry.results import CheckpointCounts
from greedypipe.workers.telemetry.topics import checkpoint_of, evaluation_of

LOOK_S = 0.05


class Committer:
    """Waits for all stages' parts of each checkpoint and then writes its manifest; removes what is no longer kept.

    Runs in stage 0, in a thread. A checkpoint that some stage could not save is left incomplete, said and counted; so is
    one whose manifest cannot be written.

    Args:
        keep_evaluations: Called before a manifest is written. What has been evaluated before a mark is known when all parts
            are there, and a run that goes on from it does not evaluate it again.
    """

    def __init__(self, board: Board, plan: Plan, run: Path, keep_evaluations: Callable[[], None]) -> None:
        self._board = board
        self._keep_evaluations = keep_evaluations
        self._plan = plan
        self._run = run
        self._expected: dict[str, int] = {}
        self._complete = 0
        self._incomplete = 0
        self._has_work = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="committer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._has_work.set()
        self._thread.join()
        # A run that fails still completes what it can; a store that is gone must not hide why it fails.
        with contextlib.suppress(*([RuntimeError] if kind else [])):
            self._step()

    def counts(self) -> CheckpointCounts:
        """Checkpoints of this run so far."""
        return CheckpointCounts(self._complete, self._incomplete)

    def expect(self, name: str, batch_id: int) -> None:
        """Tells that all stages save a checkpoint of this name, at this mark."""
        self._expected[name] = batch_id
        self._has_work.set()

    def _watch(self) -> None:
        # A store that is gone is the supervisor's matter.
        with contextlib.suppress(RuntimeError):
            while not self._closing.is_set():
                self._has_work.wait()
                self._has_work.clear()
                while self._expected and not self._closing.wait(LOOK_S):
                    self._step()

    def _step(self) -> None:
        for name, batch_id in list(self._expected.items()):
            topic = checkpoint_of(name)
            if self._board.is_complete(topic):
                del self._expected[name]
                self._finish(name, batch_id, self._board.posted(topic))

    def _finish(self, name: str, batch_id: int, parts: list[Saved]) -> None:
        try:
            saved = zip(self._plan.placement.seats(), parts, strict=True)
            if failures := [f"{seat.name}: {part.failure}" for seat, part in saved if part.failure]:
                raise OSError("; ".join(failures))
            self._keep_evaluations()
            files = {file: digest for part in parts for file, digest in part.files.items()}
            steps = {block: step for part in parts for block, step in part.steps.items()}
            config = self._plan.config.model_dump(mode="json")
            accuracy, data = self._accuracy_at(batch_id), self._plan.data
            manifest = Manifest(batch_id, steps, files, accuracy, config, versions(), data)
            commit(checkpoints_of(self._run) / name, manifest)
            prune(self._run, self._plan.config.checkpoint.keep, FINAL)
            self._complete += 1
        except OSError as error:
            self._incomplete += 1
            print(f"greedypipe: checkpoint {name} is incomplete, training goes on: {error}", file=sys.stderr, flush=True)

    def _accuracy_at(self, batch_id: int) -> float | None:
        """With FIFO an evaluation between the same two batches saw exactly these parameters."""
        epoch, rest = divmod(batch_id, self._plan.blueprint.steps_per_epoch)
        parts = self._board.posted(evaluation_of(epoch))
        if rest or len(parts) < self._board.num_processes or self._plan.config.buffers.policy != "fifo":
            return None
        return combined(parts).blocks[-1]
