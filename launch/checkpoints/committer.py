"""Makes checkpoints complete while the run goes on: the one process that writes manifests."""

import contextlib
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from greedypipe.launch.checkpoints.manifest import Manifest, checkpoints_of, commit
from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.checkpoints.retention import own_history, prune, remove_checkpoint
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.workers.block_files import FINAL, EndNotSaved
from greedypipe.workers.evaluation import combined
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.machine import versions
from greedypipe.workers.telemetry.records import Saved
from greedypipe.workers.telemetry.results import CheckpointCounts
from greedypipe.workers.telemetry.topics import checkpoint_of, evaluation_of

LOOK_S = 0.05


class Committer:
    """Waits for all stages' parts of each checkpoint and then writes its manifest; removes what is no longer kept.

    Runs in stage 0, in a thread. A checkpoint that some stage could not save is not completed: this is reported and
    counted, and what the other stages have saved of it is removed. The same holds where the manifest cannot be written.

    Args:
        origin: Where the run writes and begins.
        attempt: Number of the attempt at the run.
        keep_evaluations: Called before a manifest is written. What has been evaluated before a mark is known when all parts
            are there, and a run that goes on from it does not evaluate it again.
    """

    def __init__(
        self, board: Board, plan: Plan, origin: Origin, keep_evaluations: Callable[[], None], attempt: int = 0
    ) -> None:
        self._board = board
        self._keep_evaluations = keep_evaluations
        self._attempt = attempt
        self._plan = plan
        self._run = origin.folder
        is_own = origin.checkpoint is not None and origin.checkpoint.parent == checkpoints_of(origin.folder)
        self._history = own_history(origin.folder, origin.batch_id if is_own else None)
        self._expected: dict[str, int] = {}
        self._complete = 0
        self._lost: dict[str, str] = {}
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
        return CheckpointCounts(self._complete, len(self._lost) + len(self._expected))

    def check_saved(self, name: str) -> None:
        """Raises EndNotSaved if the checkpoint at the end of the run, or where it was stopped, could not be completed."""
        reason = self._lost.get(name, "a stage has not saved its part" if name in self._expected else "")
        if reason:
            raise EndNotSaved(f"{checkpoints_of(self._run) / name} cannot be completed: {reason}")

    def expect(self, name: str, batch_id: int) -> None:
        """Notes that all stages save a checkpoint of this name, at this mark."""
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
            if parts := self._board.complete(checkpoint_of(name, self._attempt)):
                del self._expected[name]
                self._finish(name, batch_id, parts)

    def _finish(self, name: str, batch_id: int, parts: list[Saved]) -> None:
        folder = checkpoints_of(self._run) / name
        saved = zip(self._plan.placement.seats(), parts, strict=True)
        failures = [f"{seat.name}: {part.failure}" for seat, part in saved if part.failure]
        if not failures:
            self._keep_evaluations()
            try:
                commit(folder, self._manifest(batch_id, parts))
            except OSError as error:
                failures = [str(error)]
        if failures:
            self._give_up(name, "; ".join(failures))
            return
        self._complete += 1
        if name != FINAL:
            self._history[batch_id] = folder
        self._tidy(lambda: prune(self._run, self._plan.config.checkpoint.keep, self._history))

    def _give_up(self, name: str, reason: str) -> None:
        self._lost[name] = reason
        if name == FINAL:
            return
        print(f"greedypipe: checkpoint {name} is incomplete, training goes on: {reason}", file=sys.stderr, flush=True)
        # Its room may be what the next one lacks.
        self._tidy(lambda: remove_checkpoint(checkpoints_of(self._run) / name))

    def _tidy(self, remove: Callable[[], None]) -> None:
        try:
            remove()
        except OSError as error:
            print(f"greedypipe: a checkpoint that is not needed stays: {error}", file=sys.stderr, flush=True)

    def _manifest(self, batch_id: int, parts: list[Saved]) -> Manifest:
        files = {file: digest for part in parts for file, digest in part.files.items()}
        steps = {block: step for part in parts for block, step in part.steps.items()}
        config = self._plan.config.model_dump(mode="json")
        accuracy, data = self._accuracy_at(batch_id), self._plan.data
        return Manifest(batch_id, steps, files, accuracy, config, versions(), data)

    def _accuracy_at(self, batch_id: int) -> float | None:
        """With FIFO an evaluation between the same two batches saw exactly these parameters."""
        epoch, rest = divmod(batch_id, self._plan.blueprint.steps_per_epoch)
        parts = self._board.posted(evaluation_of(epoch))
        if rest or len(parts) < self._board.num_processes or self._plan.config.buffers.policy != "fifo":
            return None
        return combined(parts).blocks[-1]
