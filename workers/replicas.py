"""What the replicas of one stage do together: average their gradients, and decide."""

import datetime
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store
from torch.nn.parallel import DistributedDataParallel

from greedypipe.pipeline.block import Block
from greedypipe.workers.placement import Seat


class Replicas(Protocol):
    """The processes that train one stage, as one of them sees them."""

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[Block]:
        """The blocks, whose gradients will be the mean over all replicas. Blocks until all of them have come here."""

    def agree(self, wish: bool) -> bool:
        """Whether any replica wishes; all must ask in the same order. Blocks until all of them have."""

    def close(self) -> None:
        """Leaves the group; idempotent."""


class NoOthers:
    """A stage of one process."""

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[Block]:
        return blocks

    def agree(self, wish: bool) -> bool:
        return wish

    def close(self) -> None:
        pass


class DataParallel:
    """Several processes of a stage: torch's DistributedDataParallel around the layers and the loss of every block.

    The processes of a stage are torch's default group; there is none of the whole run. Every wait for another replica
    ends after `timeout_s`, or when that replica is gone.

    Args:
        device: Of the blocks; decides between gloo and NCCL.

    Raises:
        ConnectionError: Some replica did not come.
    """

    def __init__(self, seat: Seat, store: Store, device: torch.device, timeout_s: float) -> None:
        # Of a convolution 1 x 1 the same order of bytes has two descriptions by strides.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
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

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[Block]:
        for block in blocks:
            block.share_learning(_averaged, self._seat.replica)
        return [ReplicatedBlock(block, self) for block in blocks]  # type: ignore[misc]

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


class ReplicatedBlock:
    """A block whose waits for other replicas name them. Everything else is the block's own."""

    def __init__(self, block: Block, replicas: DataParallel) -> None:
        self._block = block
        self._replicas = replicas

    def __getattr__(self, name: str) -> object:
        return getattr(self._block, name)

    def forward(self, x: Tensor) -> Tensor:
        with self._replicas.waiting():
            return self._block.forward(x)

    def learn(self, labels: Tensor, image: Tensor | None = None, weight: float = 1.0) -> Tensor:
        with self._replicas.waiting():
            return self._block.learn(labels, image, weight * dist.get_world_size())


def join_replicas(seat: Seat, store: Store, device: torch.device, timeout_s: float) -> Replicas:
    """Meets the other replicas of a stage, where there are any; blocks until all are there."""
    return DataParallel(seat, store, device, timeout_s) if seat.replicas > 1 else NoOthers()


def _averaged(module: nn.Module) -> nn.Module:
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return module  # torch refuses to wrap it: there is nothing to average
    return DistributedDataParallel(module, gradient_as_bucket_view=True)
