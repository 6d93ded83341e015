"""What a stage is doing right now: written by its main thread, read by the heartbeat and the live table."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from greedypipe.workers.placement import Seat


@dataclass
class StageStatus:
    """Plain fields that one thread writes and others read without a lock: each is replaced as a whole."""

    seat: Seat
    blocks: list[int]
    pid: int
    host: str
    doing: str = "starting"
    """starting, computing, waiting for ..., or done."""
    batch_id: int = -1
    step: int = 0
    loss: dict[int, float] = field(default_factory=dict)
    """Mean local loss by block, as last logged."""
    accuracy: dict[int, float] = field(default_factory=dict)
    """Of each block's head in the last evaluation."""
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

    def now(self, doing: str) -> None:
        """Says what the stage does from here on. Called twice per batch: allocates nothing."""
        self.doing = doing
        self.since = time.monotonic()

    def row(self) -> dict[str, Any]:
        """The status as JSON-able values, with the seconds spent at what it does and the Unix time of saying so."""
        own = {"name": self.seat.name, "stage": self.stage}
        return asdict(self) | own | {"for_s": time.monotonic() - self.since, "unix_s": time.time()}

    @property
    def stage(self) -> int:
        return self.seat.stage
