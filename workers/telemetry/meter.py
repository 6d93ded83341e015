"""Figures of a stage during training, gathered on the device and read every few steps."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from pydantic import BaseModel, Field, ValidationInfo, field_validator
from torch import Tensor

from greedypipe.pipeline.no_effect import no_effect
from greedypipe.workers.jsonl import LinesFile, salvage_lines
from greedypipe.workers.telemetry.results import METRICS, PassRecord, StepRecord


class LoggingConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """What is recorded, how often and where."""

    interval_steps: int = Field(
        20, ge=1, description="steps between records in metrics/stageK.jsonl, and between checks for NaN"
    )
    console_interval_s: float = Field(
        5.0, gt=0, description="seconds between progress lines when the output is not a terminal"
    )
    wandb: bool = Field(
        False, description="also log to Weights & Biases (needs extra 'wandb'; offline without an API key or a network)"
    )
    wandb_project: str = Field("", description="project there; empty: WANDB_PROJECT, or else greedypipe")
    wandb_entity: str = Field("", description="user or team there; empty: WANDB_ENTITY, or else the key's owner")
    wandb_group: str = Field("", description="group of runs there; empty: WANDB_RUN_GROUP")
    wandb_tags: tuple[str, ...] = Field((), description="tags there, e.g. [baseline, seed 1]; empty: WANDB_TAGS")
    tensorboard: bool = Field(
        False, description="also write TensorBoard events into the run's folder (needs extra 'tensorboard')"
    )
    trace_batches: int = Field(
        0, ge=0, le=5000, description="training batches of each stage to record in trace.json; 0: no trace"
    )
    trace_start: int = Field(20, ge=0, description="first training batch (its batch_id) to record in the trace")

    @field_validator("wandb_project", "wandb_entity", "wandb_group", "wandb_tags")
    @classmethod
    def _wandb_is_used(cls, value: str | tuple[str, ...], info: ValidationInfo) -> str | tuple[str, ...]:
        if value and not info.data.get("wandb"):
            raise no_effect(f"got {value}, which has no effect without logging.wandb=true")
        return value

    @field_validator("trace_start")
    @classmethod
    def _there_is_a_trace(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("trace_batches") == 0 and value != cls.model_fields[str(info.field_name)].default:
            raise no_effect(f"got {value}, which has no effect without logging.trace_batches")
        return value


class MetricsFile:
    """Records of one process, one per line, each written at once so that a killed process leaves whole lines.

    Appends to an existing file, for a run that resumes. A failed write costs the record, not the run
    (workers.jsonl.LinesFile).
    """

    def __init__(self, path: Path) -> None:
        before = salvage_lines(path, METRICS)
        self._started = time.perf_counter() - (before[-1].time_s if before else 0.0)
        self._file = LinesFile(path)

    @property
    def lost(self) -> int:
        """Records that could not be written."""
        return self._file.lost

    def write(self, record: StepRecord | PassRecord) -> None:
        """Appends one record, with its `time_s` and `unix_s`."""
        time_s, unix_s = round(time.perf_counter() - self._started, 4), round(time.time(), 4)
        self._file.append(replace(record, time_s=time_s, unix_s=unix_s))

    def close(self) -> None:
        self._file.close()


class Metered(Protocol):
    """The part of a block that a meter uses."""

    @property
    def index(self) -> int: ...
    @property
    def turn(self) -> int: ...
    @property
    def device(self) -> torch.device: ...


class MeanLoss(NamedTuple):
    """The mean loss of an interval, the block's turn at its end, and the batch_id of its last loss."""

    loss: float
    turn: int
    batch_id: int


class AnyMeter(Protocol):
    """Collects the local losses of one block."""

    @property
    def has_unread(self) -> bool:
        """Whether a whole interval has ended and has not been read; always False where `record` has said so at once."""

    def record(self, loss: Tensor, batch_id: int) -> bool:
        """Keeps a step's loss; returns whether `read` is due. Does not wait for the device."""

    def read(self) -> MeanLoss | None:
        """Mean loss of the oldest interval that has not been read, else of the steps since; None if there was no step. May
        wait for the device.

        Raises:
            FloatingPointError: A loss was not finite; names block, step and batch.
        """


class Meter:
    """Collects the local losses of one block; one copy on the device per step, nothing else on the hot path."""

    has_unread = False

    def __init__(self, block: Metered, interval_steps: int) -> None:
        self.block = block
        self._losses = torch.zeros(interval_steps, device=block.device)
        self._batch_ids: list[int] = []

    def record(self, loss: Tensor, batch_id: int) -> bool:
        """Keeps a step's loss; returns whether `read` is due."""
        self._losses[len(self._batch_ids)] = loss
        self._batch_ids.append(batch_id)
        return len(self._batch_ids) == len(self._losses)

    def read(self) -> MeanLoss | None:
        """Mean loss since the last call, None if there was no step. Synchronises with the device.

        Raises:
            FloatingPointError: A loss was not finite; names block, step and batch.
        """
        batch_ids, self._batch_ids = self._batch_ids, []
        if not batch_ids:
            return None
        return mean_of(self.block.index, self._losses[: len(batch_ids)].tolist(), batch_ids, self.block.turn)


def mean_of(block: int, losses: Sequence[float], batch_ids: Sequence[int], turn: int) -> MeanLoss:
    """The mean of a block's losses, at least one, on these batches, the last of them in the turn before `turn`.

    Raises:
        FloatingPointError: A loss was not finite; names block, step and batch.
    """
    for position, loss in enumerate(losses):
        if not math.isfinite(loss):
            step, batch_id = turn - len(losses) + position, batch_ids[position]
            raise FloatingPointError(f"block {block}: the local loss is {loss} at batch_id {batch_id} (step {step})")
    return MeanLoss(sum(losses) / len(losses), turn, batch_ids[-1])


class Waits(NamedTuple):
    """Seconds that a stage has waited for others: for their messages, for room, and for feedback."""

    input_s: float = 0.0
    output_s: float = 0.0
    feedback_s: float = 0.0

    def since(self, earlier: "Waits") -> "Waits":
        """What has been added since an earlier reading."""
        return Waits(*(now - before for now, before in zip(self, earlier, strict=True)))


class Stopwatch:
    """Splits a stage's time by purpose; waits during training are counted separately.

    Attributes:
        train_s: Seconds of training batches, waits included, from the first message on.
        hand_on_s: Seconds of batches that a finished stage only forwarded.
        evaluate_s: Seconds of evaluation batches and marks.
    """

    def __init__(self) -> None:
        self.train_s = 0.0
        self.hand_on_s = 0.0
        self.evaluate_s = 0.0
        self.wait_input_s = 0.0
        self.wait_output_s = 0.0
        self.wait_feedback_s = 0.0
        self.samples = 0
        self.batches = 0

    def count_training(self, seconds: float, waits: "Waits", samples: int) -> None:
        """Adds one training batch."""
        self.train_s += seconds
        self.wait_input_s += waits.input_s
        self.wait_output_s += waits.output_s
        self.wait_feedback_s += waits.feedback_s
        self.samples += samples
        self.batches += 1

    @property
    def launch_s(self) -> float:
        """Training seconds of the host without the waits: on a GPU, of starting the work."""
        return max(0.0, self.train_s - self.wait_input_s - self.wait_output_s - self.wait_feedback_s)

    @property
    def busy_s(self) -> float:
        """Training seconds without the waits: the stage's own time."""
        return self.launch_s

    @property
    def step_time_s(self) -> float:
        """The stage's own seconds per training batch."""
        return self.busy_s / self.batches if self.batches else 0.0

    @property
    def samples_per_s(self) -> float:
        return self.samples / self.train_s if self.train_s else 0.0

    def fraction(self, seconds: float) -> float:
        """`seconds` as a share of the training time, in [0, 1]."""
        return seconds / self.train_s if self.train_s else 0.0
