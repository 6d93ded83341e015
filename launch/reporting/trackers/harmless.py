"""Starts the trackers that a configuration asks for, none of which can end a run."""

import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

from greedypipe.launch.reporting.trackers.interface import Run, Tracker
from greedypipe.launch.reporting.trackers.tensorboard import TensorBoardTracker
from greedypipe.launch.reporting.trackers.weights_and_biases import WandbTracker
from greedypipe.workers.errors import in_one_line
from greedypipe.workers.telemetry.records import StageRow
from greedypipe.workers.telemetry.results import Evaluation

TRACKERS: Mapping[str, tuple[str, Callable[[Run], Tracker]]] = MappingProxyType(
    {"wandb": ("Weights & Biases", WandbTracker), "tensorboard": ("TensorBoard", TensorBoardTracker)}
)
"""By their key of the section logging: name, and what starts it."""


def make_trackers(run: Run) -> list[Tracker]:
    """Starts the trackers that the configuration asks for; blocks for seconds. One that cannot start is a warning line."""
    trackers: list[Tracker] = []
    for key, (name, start) in TRACKERS.items():
        if getattr(run.config, key):
            try:
                trackers.append(HarmlessTracker(name, start(run)))
            except Exception as error:
                _warn(name, error)
    return trackers


class HarmlessTracker:
    """Another tracker that must not end a training run, whatever is wrong with it: its first error is its last call."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name = name
        self._tracker: Tracker | None = tracker

    def log(self, row: StageRow) -> None:
        self._attempt(lambda tracker: tracker.log(row))

    def log_evaluation(self, evaluation: Evaluation, best: float) -> None:
        self._attempt(lambda tracker: tracker.log_evaluation(evaluation, best))

    def close(self) -> None:
        self._attempt(lambda tracker: tracker.close())

    def _attempt(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:
            _warn(self._name, error)
            self._tracker = None


def _warn(name: str, error: Exception) -> None:
    reason = str(error) if isinstance(error, ImportError) else in_one_line(error)
    print(f"greedypipe: the run continues without {name}: {reason}", file=sys.stderr, flush=True)
