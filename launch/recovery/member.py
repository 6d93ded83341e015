"""A process as a member of its run."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import Store

from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.recovery.life import FIRST_LIFE, Life
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.machine import host_name
from greedypipe.workers.telemetry.status import StageStatus
from greedypipe.workers.telemetry.topics import FOLDER


@dataclass(frozen=True)
class Member:
    """One process of a run, and what it shares with the others. The same in all attempts, except for the plan's cut.

    Attributes:
        local_rank: Its number among the processes of its host; decides its GPU.
        store: For links and replicas; its calls may block.
        board: Uses another connection to the same store, so that heartbeats never queue behind a blocked call.
        status: What this process is doing.
        folder: The run's.
        find_origin: Finds where the run begins; rank 0 only.
        life: This life of the process.
    """

    plan: Plan
    local_rank: int
    store: Store
    board: Board
    status: StageStatus
    folder: Path
    find_origin: Callable[[], Origin] | None = None
    life: Life = FIRST_LIFE

    @classmethod
    def join(
        cls,
        plan: Plan,
        rank: int,
        local_rank: int,
        stores: Sequence[Store],
        *,
        folder: Path | None = None,
        find_origin: Callable[[], Origin] | None = None,
        life: Life = FIRST_LIFE,
    ) -> "Member":
        """The calling process as a member; blocks until rank 0 has shared the run's folder.

        Args:
            stores: Two connections to the run's store.
            folder: Folder of the run; rank 0 only, like `find_origin`.
            life: This life of the process.
        """
        store, board_store = stores
        board = Board(board_store, plan.placement.num_processes)
        shared = Path(board.share(FOLDER, str(folder.absolute()) if folder else None))
        seat = plan.placement.seat_of(rank)
        blocks = list(plan.placement.blocks_of(seat.stage))
        status = StageStatus(seat, blocks, os.getpid(), host_name(), incarnation=life.incarnation)
        return cls(plan, local_rank, store, board, status, shared, find_origin, life)

    @property
    def seat(self) -> Seat:
        """Its stage and replica."""
        return self.status.seat

    @property
    def rank(self) -> int:
        """Its number among all processes of the run; 0 leads the run."""
        return self.seat.rank

    @property
    def incarnation(self) -> int:
        """How often it has been started again alone."""
        return self.status.incarnation

    @property
    def timeout_s(self) -> float:
        """Deadline of every wait for another process."""
        return self.plan.config.faults.timeout_s
