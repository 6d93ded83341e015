"""What a stage is doing right now: written by its main thread, read by the heartbeat and the live table."""

import time
from dataclasses import dataclass, field

from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.activity import Activity, sentence
from greedypipe.workers.telemetry.records import StageRow


@dataclass
class StageStatus:
    """Plain fields that one thread writes and others read without a lock: each is replaced as a whole."""

    seat: Seat
    blocks: list[int]
    pid: int
    host: str
    activity: Activity = Activity.STARTING
    peer: str = ""
    """Name of the stage or process that this one waits for; empty where it waits for none."""
    batch_id: int = -1
    step: int = 0
    loss: dict[int, float] = field(default_factory=dict)
    """Mean local loss by block, as last logged."""
    accuracy: dict[int, float] = field(default_factory=dict)
    """Of each block's head in the last evaluation."""
    learning_rate: dict[int, float] = field(default_factory=dict)
    """Of each block's next step, when its loss was logged."""
    samples_per_s: float = 0.0
    wait_input_fraction: float = 0.0
    wait_output_fraction: float = 0.0
    staleness_mean: float = 0.0
    reuse_mean: float = 0.0
    incarnation: int = 0
    """How often this process has been started again alone."""
    began_unix_s: float = field(default_factory=time.time)
    """When this process began."""
    finished: bool = False
    """All blocks here have used up their step budget."""
    since: float = field(default_factory=time.monotonic)

    def now(self, activity: Activity, peer: str = "") -> None:
        """Sets what the stage does from here on, and whom it waits for. Called several times per batch: makes no text."""
        # The clock first: a reader in between must not see computing with the start of a long wait.
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
