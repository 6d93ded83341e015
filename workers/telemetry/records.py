"""What the processes of a run tell each other while it lasts, on the board and in status.json, under these keys.

What stays of a run is in workers.telemetry.results. JSON turns the integer keys of a dictionary into text; reading a
record (workers.telemetry.topics) turns them back.
"""

from dataclasses import dataclass, field

from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.activity import Activity


@dataclass(frozen=True)
class StageRow:
    """What one process is doing: the fields of `workers.telemetry.status.StageStatus`, and what follows from them.

    Attributes:
        doing: `activity` and `peer` as a sentence, for people alone.
        for_s: Seconds since the activity began.
        learning_rate: Of the next step, by block index.
        unix_s: When the process said so.
    """

    seat: Seat
    blocks: list[int]
    pid: int
    host: str
    activity: Activity
    peer: str
    batch_id: int
    step: int
    loss: dict[int, float]
    accuracy: dict[int, float]
    samples_per_s: float
    wait_input_fraction: float
    wait_output_fraction: float
    staleness_mean: float
    reuse_mean: float
    incarnation: int
    began_unix_s: float
    finished: bool
    since: float
    name: str
    stage: int
    doing: str
    for_s: float
    unix_s: float
    learning_rate: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Victim:
    """A process that does not answer and is to be killed by whoever shares its host."""

    host: str
    pid: int


@dataclass(frozen=True)
class Cause:
    """Why a run fails.

    Attributes:
        kind: raised, died, hung or interrupted.
        kill: A process that hangs.
        reported_by: Rank of the process that found it; filled in by the board.
    """

    kind: str
    message: str
    kill: Victim | None = None
    reported_by: int = -1


@dataclass(frozen=True)
class Beginning:
    """Where a run begins, in words that another host understands (launch.checkpoints.resume.Origin).

    Attributes:
        folder: The run's, absolute.
        checkpoint: Folder of the checkpoint to begin at, absolute; empty: with fresh parameters.
        evaluated: Epochs whose evaluation is known already.
    """

    folder: str
    checkpoint: str
    evaluated: tuple[int, ...] = ()


@dataclass(frozen=True)
class EvaluationPart:
    """Result of one pass over the held-out part, as far as one process knows it.

    Attributes:
        epoch: Of stage 0, that the pass followed.
        samples: That this process has seen; with replicas a part of all.
        correct: How many of them each head got right, by block index.
        loss: Their summed loss, by block index.
        ensemble: How many all heads together got right; only in the last stage.
    """

    epoch: int
    samples: int
    correct: dict[int, int]
    ensemble: int | None
    loss: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """What a stage has saved of one checkpoint.

    Attributes:
        files: SHA-256 by file name; empty where it failed.
        steps: Optimizer steps by block index.
        failure: Why there are no files.
    """

    files: dict[str, str] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Spans:
    """What a stage's recorder has kept: columns of equal length (workers.around.trace.Recorder).

    Attributes:
        host: Equal where the monotonic clock is the same one.
        epoch_s: Unix time at which this host's monotonic clock was 0.
        start_s: Begin of every span on the monotonic clock; `end_s` its end.
        kind: Names of `workers.around.trace.SpanKind`, lower case.
        block: Index of the block; -1 where the span belongs to none.
        lost: Spans without room.
    """

    host: str
    epoch_s: float
    start_s: list[float]
    end_s: list[float]
    kind: list[str]
    block: list[int]
    batch_id: list[int]
    lost: int


@dataclass(frozen=True)
class RunStatus:
    """`status.json`: what every process was doing at a moment.

    Attributes:
        labels: Of the processes' seats, by rank.
        stages: None where a process has not begun.
    """

    unix_s: float
    total_steps: int
    labels: list[str]
    stages: list[StageRow | None]
