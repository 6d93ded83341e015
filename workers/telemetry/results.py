"""Records that a run leaves in its folder: the lines of metrics/*.jsonl, and summary.json, under these keys.

Each record is written and read as a whole; its keys are spelled out nowhere else.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from greedypipe.workers.validator import Validator


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """A line of metrics/stageK.jsonl about the training steps of one block since its previous line. Means and sums count
    from the process's start. Lines written by an older version may lack newer keys.

    Attributes:
        time_s: Seconds that the run has been at work; `unix_s` is Unix time, one clock for all stages of a host. Both are
            filled in by workers.telemetry.meter.MetricsFile.
        batch_id: Number of the newest batch.
        loss: Mean local loss; None if it was not finite.
        lr: Learning rate of the next step.
        samples: Rows that this process has trained on.
        train_s: Seconds of training, waits included.
        sent_bytes: Bytes sent to the next stage, evaluation included; `send_s` are the seconds that took, without waits.
    """

    time_s: float = 0.0
    unix_s: float = 0.0
    block: int
    step: int
    batch_id: int = -1
    loss: float | None = None
    lr: float = 0.0
    samples_per_s: float = 0.0
    step_time_s: float = 0.0
    wait_input_fraction: float = 0.0
    wait_output_fraction: float = 0.0
    wait_feedback_fraction: float = 0.0
    staleness_mean: float = 0.0
    staleness_max: int = 0
    reuse_mean: float = 0.0
    occupancy_mean: float = 0.0
    dropped: int = 0
    samples: int = 0
    train_s: float = 0.0
    sent_bytes: int = 0
    send_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PassRecord:
    """A line of metrics/stageK.jsonl about one evaluation pass in this process.

    Attributes:
        time_s: As in `StepRecord`; `unix_s` likewise.
        evaluation: Epoch of stage 0 that the pass followed.
        samples: Samples that this process has seen.
        accuracy: Accuracy of each block's head over these samples, in [0, 1].
    """

    time_s: float = 0.0
    unix_s: float = 0.0
    evaluation: int
    samples: int
    accuracy: dict[int, float]


@dataclass(frozen=True)
class Evaluation:
    """Accuracies of one pass over all processes; a line of metrics/evaluations.jsonl.

    Attributes:
        epoch: Epoch of stage 0 that the pass followed.
        blocks: Accuracy of every block's head, in the network's order, in [0, 1].
        ensemble: Accuracy of all heads together, in [0, 1].
        losses: Mean loss of every block's head on the same samples; None where it is not finite. Empty in a file of an
            older version.
    """

    epoch: int
    blocks: list[float]
    ensemble: float
    losses: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Prediction:
    """Figures predicted before a run began.

    Attributes:
        boundaries: First layers of the blocks, as in `partition.boundaries`.
        stage_s: Own seconds per batch of every stage, in one process.
        replicas: Number of processes of every stage.
        back_propagation_s: Seconds per batch of the network as one block.
        bound_samples_per_s: Throughput that the slowest stage allows.
        samples_per_s: Predicted throughput: the bound, lowered where stages share cores.
    """

    boundaries: tuple[str, ...]
    stage_s: tuple[float, ...]
    replicas: tuple[int, ...]
    back_propagation_s: float
    bound_samples_per_s: float
    samples_per_s: float


@dataclass(frozen=True)
class LinkReport:
    """Figures of a process's link to the next stage, evaluation included.

    Attributes:
        transport: See workers.links.interface.LinkStats, also for the other attributes.
    """

    transport: str
    messages: int
    sent_bytes: int
    send_s: float
    wait_room_s: float
    dropped: int

    @property
    def message_s(self) -> float:
        """Seconds per message, without waits."""
        return self.send_s / max(self.messages, 1)


@dataclass(frozen=True)
class GpuReport:
    """What a process has had of its GPU.

    Attributes:
        device: What the process calls it; its `uuid` is the same in all processes.
        allocated_bytes: Largest memory of its tensors; `reserved_bytes` is what torch held for them.
        used_bytes: All that was in use on the GPU at the end: of every process there, with contexts, kernels and NCCL.
        launch_time_s: Seconds per training batch in which the host started the work that takes the GPU `step_time_s`.
    """

    device: str
    name: str
    uuid: str
    allocated_bytes: int
    reserved_bytes: int
    used_bytes: int
    launch_time_s: float


@dataclass(frozen=True)
class StageReport:
    """One process of a stage in `summary.json`. Times are of training batches alone; see workers.telemetry.meter.Stopwatch.

    Attributes:
        label: The stage's number, with that of the replica if there are several: "2.0".
        restarts: How often its process was started again alone; the other figures count from the last start.
        began_unix_s: Unix time at which its process began.
        samples: Rows that this process has trained on.
        peak_memory_bytes: See workers.memory; slots in shared memory count at both ends of their link.
        slot_bytes: Memory of the link slots that this process has allocated, part of its peak.
        link: Figures of its link to the next stage.
        back: Likewise of its link to the stage before, where feedback travels; None: nothing does.
        feedback_age_mean: Mean age, in turns, of the feedback that it has read with replay; None: it is that of the delay.
        staleness_counts: Reads by staleness 0, 1, 2 and so on, up to the largest that occurred; the entry at
            buffers.stats.STALENESS_LIMIT counts all from there on.
        save_stalled_s: Seconds for which checkpoints have kept it from training.
        records_lost: Lines of its metrics file that could not be written.
        gpu: Its GPU; None on the CPU.
    """

    stage: int
    replica: int
    label: str
    restarts: int
    began_unix_s: float
    blocks: list[int]
    parameters: int
    head_parameters: int
    batches: int
    samples: int
    step_time_s: float
    samples_per_s: float
    busy_fraction: float
    wait_input_fraction: float
    wait_output_fraction: float
    train_s: float
    hand_on_s: float
    evaluate_s: float
    peak_memory_bytes: int
    threads: int
    staleness_mean: float
    staleness_max: int
    reuse_mean: float
    occupancy_mean: float
    dropped: int
    staleness_counts: list[int]
    slot_bytes: int
    link: LinkReport
    save_stalled_s: float = 0.0
    records_lost: int = 0
    wait_feedback_fraction: float = 0.0
    back: LinkReport | None = None
    feedback_age_mean: float | None = None
    gpu: GpuReport | None = None


@dataclass(frozen=True)
class Accuracy:
    """Accuracies at the end of a run, in [0, 1].

    Attributes:
        blocks: Accuracy of every block's head, in the network's order.
        final: Accuracy of the network's own classifier.
        ensemble: Accuracy of all heads together.
    """

    blocks: list[float]
    final: float
    ensemble: float


@dataclass(frozen=True)
class CheckpointCounts:
    """Number of complete checkpoints of a run, and of those that could not be completed."""

    complete: int
    incomplete: int


class RunEnd(StrEnum):
    """How a run has ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    """Stopped by SIGTERM, after saving."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Summary:
    """`summary.json` of a run that has finished or was stopped by SIGTERM.

    Attributes:
        status: FINISHED or STOPPED.
        accuracy: Accuracies of the last evaluation; None if there was none.
        began_at_batch_id: The first training batch; above 0 in a run that resumed from a checkpoint.
        samples_per_s: Training samples per second of the whole pipeline.
        bound_samples_per_s: Throughput that the slowest stage allows; `efficiency` is the quotient of the two.
        wall_s: Seconds of the whole run; in a resumed run, since it resumed.
        train_s: Seconds of training of the stage that took longest.
        stages: A report per process, in the order of ranks.
        predicted: Figures predicted before the run; None if there were none.
    """

    status: RunEnd
    accuracy: Accuracy | None
    began_at_batch_id: int
    checkpoints: CheckpointCounts
    samples_per_s: float
    bound_samples_per_s: float
    efficiency: float
    wall_s: float
    train_s: float
    stages: list[StageReport]
    evaluations: list[Evaluation]
    versions: dict[str, str]
    hardware: dict[str, Any]
    predicted: Prediction | None = None


@dataclass(frozen=True)
class Failure:
    """`summary.json` of a run that failed or was interrupted."""

    status: RunEnd
    cause: str


METRICS: Validator[StepRecord | PassRecord] = Validator(StepRecord | PassRecord)
"""A line of metrics/stageK.jsonl."""
EVALUATIONS: Validator[Evaluation] = Validator(Evaluation)
"""A line of metrics/evaluations.jsonl."""
