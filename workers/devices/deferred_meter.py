"""Losses of a block that are read when they have come to the host, not by waiting for the device."""

from collections import deque

import torch
from torch import Tensor

from greedypipe.workers.devices.side import Side, wait_until
from greedypipe.workers.telemetry.meter import MeanLoss, Metered, mean_of

LANDINGS = 3
"""Intervals on their way to the host at most; with as many, the oldest is waited for."""


class DeferredMeter:
    """As workers.telemetry.meter.Meter, for a block on a GPU. On CUDA not yet run.

    At the end of an interval its losses are copied to the host behind what the stage has put on the device so far; `record`
    says that `read` is due as soon as they have come, some steps later. So the device always has work.
    """

    def __init__(self, block: Metered, interval_steps: int, side: Side) -> None:
        self.block = block
        self._side = side
        self._losses = torch.zeros(interval_steps, device=block.device)
        self._batch_ids: list[int] = []
        self._free = [_Landing(side, self._losses) for _ in range(LANDINGS)]
        self._coming: deque[_Landing] = deque()

    @property
    def has_unread(self) -> bool:
        """Whether a whole interval has not been read."""
        return bool(self._coming)

    def record(self, loss: Tensor, batch_id: int) -> bool:
        """Keeps a step's loss; returns whether `read` is due. Does not wait for the device."""
        position = len(self._batch_ids)
        self._side.run(lambda: self._losses[position].copy_(loss))
        self._batch_ids.append(batch_id)
        if position + 1 == len(self._losses):
            self._send()
        return bool(self._coming) and (not self._free or self._coming[0].is_there)

    def read(self) -> MeanLoss | None:
        """Mean of the oldest interval that has not been read, or of the steps since; None if there was none. Waits for the
        device where they have not come yet.

        Raises:
            FloatingPointError: A loss was not finite; names block, step and batch.
            TimeoutError: The device has hung.
        """
        if not self._coming and self._batch_ids:
            self._send()
        if not self._coming:
            return None
        landing = self._coming.popleft()
        self._free.append(landing)
        return landing.read(self.block.index)

    def _send(self) -> None:
        landing = self._free.pop()
        landing.send(self._losses, self._batch_ids, self.block.turn)
        self._batch_ids = []
        self._coming.append(landing)


class _Landing:
    """Host memory for the losses of one interval."""

    def __init__(self, side: Side, losses: Tensor) -> None:
        self._side = side
        self._memory = side.host_memory_like(losses)
        self._has_come = side.new_mark()
        self._batch_ids: list[int] = []
        self._turn = 0

    @property
    def is_there(self) -> bool:
        return self._side.is_reached(self._has_come)

    def send(self, losses: Tensor, batch_ids: list[int], turn: int) -> None:
        """Has the losses of these batches copied. On the stage's own stream: the next ones are written behind it."""
        self._batch_ids, self._turn = batch_ids, turn
        self._side.run(lambda: self._memory.copy_(losses, non_blocking=True))
        self._side.mark_stage(self._has_come)

    def read(self, block: int) -> MeanLoss:
        wait_until(self._side, self._has_come, "compute the losses of an interval")
        return mean_of(block, self._memory[: len(self._batch_ids)].tolist(), self._batch_ids, self._turn)
