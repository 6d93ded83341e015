"""A process as a member of its run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import Store

from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.status import StageStatus


@dataclass(frozen=True)
class Process:
    """Which process of the run this one is.

    Attributes:
        folder: The run's, known to rank 0 alone, which tells the others.
        origin: Finds where the run begins; in rank 0 alone.
        store: For the links; its calls may block.
        board_store: Another connection to the same store, for heartbeats, which must never stand behind a blocked call.
        incarnation: How often this process has been started again alone.
    """

    rank: int
    local_rank: int
    folder: Path | None
    origin: Callable[[], Origin] | None
    store: Store
    board_store: Store
    incarnation: int = 0


@dataclass(frozen=True)
class Member:
    """What the policies know of their process."""

    process: Process
    plan: Plan
    board: Board
    status: StageStatus
    folder: Path

    @property
    def timeout_s(self) -> float:
        """Deadline of every wait for another process."""
        return self.plan.config.faults.timeout_s
