"""Weights & Biases and TensorBoard: optional, imported when asked for, never fatal."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from greedypipe.workers.telemetry.meter import LoggingConfig
from greedypipe.workers.telemetry.records import StageRow
from greedypipe.workers.telemetry.results import Evaluation

STAGE_KEYS = ("samples_per_s", "wait_input_fraction", "wait_output_fraction", "staleness_mean", "reuse_mean")


class Tracker(Protocol):
    """Where the figures of a run go besides its folder."""

    def log(self, row: StageRow) -> None:
        """Takes the newest status of a stage; of its first replica where there are several."""

    def log_evaluation(self, evaluation: Evaluation) -> None:
        """Takes the accuracies of one evaluation pass."""

    def close(self) -> None:
        """Writes what is left."""


def make_trackers(config: LoggingConfig, folder: Path, settings: dict[str, Any]) -> list[Tracker]:
    """Starts the trackers that the configuration asks for; one that cannot start is left out with one warning line."""
    trackers: list[Tracker] = []
    for is_asked_for, start in ((config.wandb, WandbTracker), (config.tensorboard, TensorBoardTracker)):
        if not is_asked_for:
            continue
        try:
            trackers.append(HarmlessTracker(start(folder, settings)))
        except Exception as error:
            _warn(start.__name__, error)
    return trackers


class HarmlessTracker:
    """Another tracker that must not end a training run, whatever is wrong with it: its first error is its last call."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker: Tracker | None = tracker

    def log(self, row: StageRow) -> None:
        self._attempt(lambda tracker: tracker.log(row))

    def log_evaluation(self, evaluation: Evaluation) -> None:
        self._attempt(lambda tracker: tracker.log_evaluation(evaluation))

    def close(self) -> None:
        self._attempt(lambda tracker: tracker.close())

    def _attempt(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:
            _warn(type(self._tracker).__name__, error)
            self._tracker = None


def stage_values(row: StageRow) -> dict[str, float]:
    """The figures of a stage under the keys that all trackers use: stageK/..., stageK/blockB/loss."""
    values = {f"stage{row.stage}/{key}": getattr(row, key) for key in STAGE_KEYS}
    return values | {f"stage{row.stage}/block{block}/loss": loss for block, loss in row.loss.items()}


def evaluation_values(evaluation: Evaluation) -> dict[str, float]:
    """Accuracies under the keys that all trackers use."""
    blocks = {f"accuracy/block{index}": accuracy for index, accuracy in enumerate(evaluation.blocks)}
    return blocks | {"accuracy/final": evaluation.blocks[-1], "accuracy/ensemble": evaluation.ensemble}


class WandbTracker:
    """One run of Weights & Biases for the whole pipeline; offline where there is no key.

    Stages stand at different steps, so each has a step metric of its own: stageK/step.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise RuntimeError("wandb is not installed; pip install 'greedypipe[wandb]'") from None
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_wandb_key() else "offline")
        self._run = wandb.init(
            project="greedypipe",
            name=folder.name,
            dir=folder,
            config=settings,
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("epoch")
        self._run.define_metric("accuracy/*", step_metric="epoch")
        self._steps: dict[int, int] = {}

    def log(self, row: StageRow) -> None:
        stage = row.stage
        if stage not in self._steps:
            self._run.define_metric(f"stage{stage}/step")
            self._run.define_metric(f"stage{stage}/*", step_metric=f"stage{stage}/step")
        if self._steps.get(stage) != row.step:
            self._steps[stage] = row.step
            self._run.log(stage_values(row) | {f"stage{stage}/step": row.step})

    def log_evaluation(self, evaluation: Evaluation) -> None:
        self._run.log(evaluation_values(evaluation) | {"epoch": evaluation.epoch})

    def close(self) -> None:
        self._run.finish()


class TensorBoardTracker:
    """Event files in the run's folder, under tensorboard/."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise RuntimeError("tensorboard is not installed; pip install 'greedypipe[tensorboard]'") from None
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, row: StageRow) -> None:
        for key, value in stage_values(row).items():
            self._writer.add_scalar(key, value, row.step)

    def log_evaluation(self, evaluation: Evaluation) -> None:
        for key, value in evaluation_values(evaluation).items():
            self._writer.add_scalar(key, value, evaluation.epoch)

    def close(self) -> None:
        self._writer.close()


def _has_wandb_key() -> bool:
    # Asking wandb itself would prompt on a terminal.
    netrc = Path.home() / ".netrc"
    return "WANDB_API_KEY" in os.environ or (netrc.is_file() and "api.wandb.ai" in netrc.read_text())


def _warn(tracker: str, error: Exception) -> None:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    print(f"greedypipe: training goes on without {tracker}: {reason}", file=sys.stderr)
