"""What a tracker is given of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from greedypipe.workers.telemetry.meter import LoggingConfig
from greedypipe.workers.telemetry.records import StageRow
from greedypipe.workers.telemetry.results import Evaluation


@dataclass(frozen=True)
class Run:
    """The run that is tracked.

    Attributes:
        settings: The resolved configuration: sections of keys, as JSON has them.
        num_blocks: Of the network.
    """

    folder: Path
    settings: Mapping[str, Mapping[str, Any]]
    num_blocks: int
    config: LoggingConfig


class Tracker(Protocol):
    """Keeps figures over time. All calls come from one thread and must return soon."""

    def log(self, row: StageRow) -> None:
        """Takes the status of a stage that has new figures, with the throughput of all of its replicas."""

    def log_evaluation(self, evaluation: Evaluation, best: float) -> None:
        """Takes one evaluation pass, and the best accuracy of the network's classifier so far."""

    def close(self) -> None:
        """Writes what is left; blocks for seconds at most."""
