"""What a stage is doing right now: written by its main thread, read by the heartbeat and the live table."""

import time
from dataclasses import dataclass, field

from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.activity import Activity, sentence
from greedypipe.workers.telemetry.records import StageRow


@dataclass
class StageStatus:
    """Plain fields that one thread writes and others read without a lock: every field is replaced as a whole."""

    seat: Seat
    blocks: list[int]
    pid: int
    host: str
    activity: Activity = Activity.STARTING
    peer: str = ""
    """Name of the stage or process that this one waits for; empty if it waits for none."""
    batch_id: int = -1
    step: int = 0
    loss: dict[int, float] = field(default_factory=dict)
    """Mean local loss of each block, as last logged."""
    accuracy: dict[int, float] = field(default_factory=dict)
    """Accuracy of each block's head in the last evaluation."""
    learning_rate: dict[int, float] = field(default_factory=dict)
    """Learning rate of each block's next step, as last logged."""
    samples_per_s: float = 0.0
    wait_input_fraction: float = 0.0
    wait_output_fraction: float = 0.0
    wait_feedback_fraction: float = 0.0
    staleness_mean: float = 0.0
    reuse_mean: float = 0.0
    incarnation: int = 0
    """Number of times that this process has been started again alone."""
    began_unix_s: float = field(default_factory=time.time)
    """Unix time at which this process began."""
    finished: bool = False
    """Whether all blocks of this stage have used up their step budget."""
    since: float = field(default_factory=time.monotonic)

    def now(self, activity: Activity, peer: str = "") -> None:
        """Sets what the stage does, and whom it waits for, from here on. Called several times per batch: formats no text."""
        # The clock first: a concurrent reader must not see "computing" with the start time of a long wait.
        self.since = time.monotonic()
        self.peer = peer
        self.activity = activity

    @property
    def doing(self) -> str:
        """The activity as a sentence, for people."""
        return sentence(self.activity, self.peer)

    def row(self) -> StageRow:
        """The status as a record, with the seconds spent on its activity and the Unix time of this reading."""
        return StageRow(
            **vars(self),
            name=self.seat.name,
            stage=self.stage,
            doing=self.doing,
            for_s=time.monotonic() - self.since,
            unix_s=time.time(),
        )

    @property
    def stage(self) -> int:
        return self.seat.stage
