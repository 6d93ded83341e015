"""Joint work of the replicas of one stage: they average gradients and agree on decisions."""

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.block import Block, Learned
from greedypipe.pipeline.feedback import NOTHING, Feedback
from greedypipe.workers.around.shell import AnyBlock, BlockShell
from greedypipe.workers.placement import Seat


class Replicas(Protocol):
    """The processes that train one stage, from the point of view of one of them."""

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[AnyBlock]:
        """The blocks to train instead, with the gradients of whole batches."""

    def agree(self, wish: bool) -> bool:
        """Whether `wish` is true in any replica. All replicas must call this equally often; blocks until all have."""

    def close(self) -> None:
        """Leaves the group; idempotent."""


class Unreplicated:
    """A stage of one process."""

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[AnyBlock]:
        return blocks

    def agree(self, wish: bool) -> bool:
        return wish

    def close(self) -> None:
        pass


class DataParallel:
    """A stage of several processes, which sum the gradients of each block before its step.

    The processes of a stage are torch's default group; the run as a whole has none. Every wait for another replica ends
    after `timeout_s`, or when that replica is gone.

    Args:
        device: Device of the blocks; decides between gloo and NCCL.

    Raises:
        ConnectionError: Another replica did not join in time.
    """

    def __init__(self, seat: Seat, store: Store, device: torch.device, timeout_s: float) -> None:
        self._seat = seat
        self._flag = torch.zeros(1, dtype=torch.int32, device=device)
        with self.waiting():
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=PrefixStore(f"replicas{seat.stage}", store),
                rank=seat.replica,
                world_size=seat.replicas,
                timeout=datetime.timedelta(seconds=timeout_s),
            )

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[AnyBlock]:
        for block in blocks:
            block.become_replica(self._seat.replica, sum_gradients)
        return [ReplicatedBlock(block, self) for block in blocks]

    def agree(self, wish: bool) -> bool:
        self._flag.fill_(wish)
        with self.waiting():
            dist.all_reduce(self._flag, dist.ReduceOp.MAX)
        return bool(self._flag.item())

    def close(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Turns the failure of a collective operation in the body into an error that names the other replicas.

        gloo's errors are plain RuntimeErrors, recognised by the name "gloo" in their text.
        """
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
                raise
            first = str(error).strip().splitlines()[0]
            others = f"the other replicas of stage {self._seat.stage}"
            raise ConnectionError(f"{self._seat.name} waited in vain for {others}: {first}") from error


class ReplicatedBlock(BlockShell):
    """A block of one replica. It learns from the whole batch, and all replicas evaluate with the same statistics.

    Args:
        block: The block whose gradients are summed over the replicas.
    """

    def __init__(self, block: Block, replicas: DataParallel) -> None:
        super().__init__(block)
        self._replicas = replicas
        self._statistics = block.statistics()
        self._is_evaluating = False

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        self._is_evaluating = False
        return self._block.forward(x, batch)

    def learn(self, feedback: Feedback = NOTHING, *, drains: bool = False) -> Learned:
        with self._replicas.waiting():
            return self._block.learn(feedback, drains=drains)

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self._is_evaluating:
            # Replicas have seen different rows; the first one's statistics are the ones that are saved.
            with self._replicas.waiting():
                broadcast(self._statistics)
            self._is_evaluating = True
        return self._block.predict(x)


def join_replicas(seat: Seat, store: Store, device: torch.device, timeout_s: float) -> Replicas:
    """Joins the other replicas of a stage, if there are any; blocks until all have joined."""
    return DataParallel(seat, store, device, timeout_s) if seat.replicas > 1 else Unreplicated()


def sum_gradients(parameters: Sequence[nn.Parameter], share: float) -> None:
    """Replaces the gradients of a mean over a replica's rows, which are this share of a batch, with those of the mean over
    the whole batch. Blocks until all replicas have called it.

    DistributedDataParallel gives the same bits, but supports neither two backward passes per step nor a kept graph.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).mul_(share)
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Copies the first replica's tensors to all others. Blocks until they have arrived."""
    for tensor in tensors:
        dist.broadcast(tensor, 0)
