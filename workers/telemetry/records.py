"""Records that the processes of a run exchange while it lasts, on the board and in status.json, under these keys.

The records that a run leaves behind are in workers.telemetry.results. JSON turns the integer keys of a dictionary into
text; reading a record (workers.telemetry.topics) turns them back.
"""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.activity import Activity

Number = Annotated[int, Field(ge=-1, lt=2**63)]
"""An index, a count or a process; -1 where there is none yet."""


@dataclass(frozen=True)
class StageRow:
    """What one process is doing: the fields of `workers.telemetry.status.StageStatus`, and values derived from them.

    Attributes:
        doing: `activity` and `peer` as a sentence, only for people.
        for_s: Seconds since the activity began.
        learning_rate: Learning rate of the next step, by block index.
        unix_s: Unix time of this reading.
    """

    seat: Seat
    blocks: Annotated[list[Number], Field(min_length=1)]
    pid: Number
    host: str
    activity: Activity
    peer: str
    batch_id: Number
    step: Number
    loss: dict[Number, float]
    accuracy: dict[Number, float]
    samples_per_s: float
    wait_input_fraction: float
    wait_output_fraction: float
    wait_feedback_fraction: float
    staleness_mean: float
    reuse_mean: float
    incarnation: Number
    began_unix_s: float
    finished: bool
    since: float
    name: str
    stage: Number
    doing: str
    for_s: float
    unix_s: float
    learning_rate: dict[Number, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gpu:
    """The GPU of a process.

    Attributes:
        device: What the process calls it, e.g. "cuda:0".
        uuid: The same in all processes.
    """

    device: str
    name: str
    uuid: str


@dataclass(frozen=True)
class Victim:
    """A process that does not answer, to be killed by another process on its host (launch.recovery.identity)."""

    rank: Number
    incarnation: Number


@dataclass(frozen=True)
class KeeperRow:
    """The process that starts a rank again when it dies.

    Attributes:
        name: The rank in words, e.g. "stage 1".
        pid: Its process id; 0 once it has ended without a failure.
    """

    rank: Number
    name: str
    host: str
    pid: Number


@dataclass(frozen=True)
class Cause:
    """Why a run ends before its time.

    Attributes:
        kind: raised, died, hung, refused, interrupted, or stopped before training began.
        kill: A process that hangs, to be killed.
        reported_by: Rank of the process that found it; filled in by the board.
    """

    kind: str
    message: str
    kill: Victim | None = None
    reported_by: Number = -1


@dataclass(frozen=True)
class Beginning:
    """Where a run begins, in a form that is valid on every host (launch.checkpoints.resume.Origin).

    Attributes:
        folder: Folder of the run, absolute.
        checkpoint: Folder of the checkpoint to begin at, absolute; empty: begin with fresh parameters.
        evaluated: Epochs that have been evaluated already.
        is_over: Whether the run has finished already, so that nothing is left to train.
    """

    folder: str
    checkpoint: str
    evaluated: tuple[Number, ...] = ()
    is_over: bool = False


@dataclass(frozen=True)
class EvaluationPart:
    """Result of one pass over the held-out part in one process.

    Attributes:
        epoch: Epoch of stage 0 that the pass followed.
        samples: Number of samples that this process has seen; with replicas a part of all.
        correct: Number of correct answers of each head, by block index.
        ensemble: Number of correct answers of all heads together; only in the last stage.
        loss: Summed loss of each head, by block index.
    """

    epoch: Number
    samples: Number
    correct: dict[Number, Number]
    ensemble: Number | None
    loss: dict[Number, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Passed:
    """The newest evaluation pass that a process has come to the end of, and has posted its part of.

    Attributes:
        epoch: Of stage 0, that the pass followed.
        unix_s: When; tells a pass from a repetition of it.
    """

    epoch: Number
    unix_s: float


@dataclass(frozen=True)
class Saved:
    """A stage's part of one checkpoint.

    Attributes:
        files: SHA-256 by file name; empty if saving failed.
        steps: Optimizer steps by block index.
        failure: Why there are no files; empty if there are.
    """

    files: dict[str, str] = field(default_factory=dict)
    steps: dict[Number, Number] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Spans:
    """The spans of a stage's recorder, as columns of equal length (workers.around.trace.Recorder).

    Attributes:
        host: Identifies the monotonic clock: equal for processes that share one.
        epoch_s: Unix time at which this host's monotonic clock was 0.
        start_s: Start of every span on the monotonic clock; `end_s` likewise.
        kind: Names of `workers.around.trace.SpanKind`, lower case.
        block: Index of the block; -1 for a span that belongs to none.
        lost: Number of spans for which there was no room.
        work_overlaps: Whether what the stage computes was done by a GPU while the host did something else.
    """

    host: str
    epoch_s: float
    start_s: list[float]
    end_s: list[float]
    kind: list[str]
    block: list[int]
    batch_id: list[int]
    lost: int
    work_overlaps: bool = False


@dataclass(frozen=True)
class RunStatus:
    """`status.json`: what every process was doing at one moment.

    Attributes:
        labels: Labels of the processes' seats, by rank.
        stages: Status of the processes, by rank; None for one that has not begun.
    """

    unix_s: float
    total_steps: int
    labels: list[str]
    stages: list[StageRow | None]
