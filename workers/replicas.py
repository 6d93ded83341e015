"""What the replicas of one stage do together: average their gradients, and decide."""

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
    """The processes that train one stage, as one of them sees them."""

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[AnyBlock]:
        """The blocks, whose gradients will be those of whole batches."""

    def agree(self, wish: bool) -> bool:
        """Whether any replica wishes; all must ask in the same order. Blocks until all of them have."""

    def close(self) -> None:
        """Leaves the group; idempotent."""


class NoOthers:
    """A stage of one process."""

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[AnyBlock]:
        return blocks

    def agree(self, wish: bool) -> bool:
        return wish

    def close(self) -> None:
        pass


class DataParallel:
    """Several processes of a stage: before every step of a block they sum its gradients.

    The processes of a stage are torch's default group; there is none of the whole run. Every wait for another replica
    ends after `timeout_s`, or when that replica is gone.

    Args:
        device: Of the blocks; decides between gloo and NCCL.

    Raises:
        ConnectionError: Some replica did not come.
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
        """Names whom a collective operation in the body waited for in vain.

        gloo's errors are plain RuntimeErrors; what it says of its own always carries its name.
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
    """A block of one replica: its gradients are those of the whole batch, and its evaluations all of one network's.

    Args:
        block: Whose gradients are summed over the replicas.
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
            # Each replica has seen other rows; the network that is saved has the first one's statistics.
            with self._replicas.waiting():
                broadcast(self._statistics)
            self._is_evaluating = True
        return self._block.predict(x)


def join_replicas(seat: Seat, store: Store, device: torch.device, timeout_s: float) -> Replicas:
    """Meets the other replicas of a stage, where there are any; blocks until all are there."""
    return DataParallel(seat, store, device, timeout_s) if seat.replicas > 1 else NoOthers()


def sum_gradients(parameters: Sequence[nn.Parameter], share: float) -> None:
    """Replaces the gradients of a mean over a replica's rows, which are this share of a batch, by those of the mean over
    the whole batch. Blocks until all replicas have come here.

    DistributedDataParallel gives the same bits, but bears neither two backward passes of one step nor a kept graph.
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
    """Gives every replica the first one's tensors. Blocks until they have come."""
    for tensor in tensors:
        dist.broadcast(tensor, 0)
