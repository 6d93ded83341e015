"""Joint work of the replicas of one stage: they average gradients and agree on decisions."""

import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.feedback import NOTHING, Feedback, Learned
from greedypipe.workers.around.shell import AnyBlock, BlockShell
from greedypipe.workers.devices.current import make_current
from greedypipe.workers.links.gloo_group import make_gloo_group
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.placement import Seat, part_of
from greedypipe.workers.state_rows import joined_state, packed, room_for, rows_of, unpacked


class Replicas(Protocol):
    """The processes that train one stage, from the point of view of one of them."""

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[AnyBlock]:
        """The blocks to train instead, with the gradients of whole batches."""

    def agree(self, wish: bool) -> bool:
        """Whether `wish` is true in any replica. All replicas must call this equally often; blocks until all have."""

    def states(self, blocks: Sequence[Block]) -> list[dict[str, Any]]:
        """What a checkpoint holds of these blocks; empty in all replicas but the first. All replicas must call this behind
        the same batch; blocks until their rows have come together."""

    def close(self) -> None:
        """Leaves the group; idempotent."""


class Unreplicated:
    """A stage of one process."""

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[AnyBlock]:
        return blocks

    def agree(self, wish: bool) -> bool:
        return wish

    def states(self, blocks: Sequence[Block]) -> list[dict[str, Any]]:
        return [block.state_dict() for block in blocks]

    def close(self) -> None:
        pass


class DataParallel:
    """A stage of several processes, which sum the gradients of each block before its step.

    They form a process group of their own; torch's default group is left alone. Every wait for another replica ends after
    the group's deadline, or when that replica is gone.

    Args:
        group: All replicas, each under its number, for tensors on the blocks' device; gloo's or NCCL's.
        host_group: The same for what the host decides; gloo's. A flag on a GPU would have to be read back in every batch.
    """

    def __init__(self, seat: Seat, group: Any, host_group: Any) -> None:
        self._seat = seat
        self._group: Any = group
        self._host_group: Any = host_group
        self._flag = torch.zeros(1, dtype=torch.int32)

    def share_learning(self, blocks: Sequence[Block]) -> Sequence[AnyBlock]:
        for block in blocks:
            block.become_replica(self._seat.replica, self._sum_gradients)
        return [ReplicatedBlock(block, self) for block in blocks]

    def agree(self, wish: bool) -> bool:
        self._flag.fill_(wish)
        largest = dist.AllreduceOptions()
        largest.reduceOp = dist.ReduceOp.MAX
        with self.waiting():
            self._host_group.allreduce([self._flag], largest).wait()
        return bool(self._flag.item())

    def states(self, blocks: Sequence[Block]) -> list[dict[str, Any]]:
        """Replicas are equal but for the rows that they have of batches on which feedback is due, and of what is on its way
        back: those go to the first one, which saves."""
        with self.waiting():
            if self._seat.leads_stage:
                return [self._joined(block) for block in blocks]
            for block in blocks:
                if rows := rows_of(block):
                    self._group.send([packed(rows)], 0, 0).wait()
            return []

    def _joined(self, block: Block) -> dict[str, Any]:
        rows, others = rows_of(block), []
        for number in range(1, self._seat.replicas if rows else 1):
            part = part_of(number, self._seat.replicas)
            data = room_for(rows, part)
            self._group.recv([data], number, 0).wait()
            others.append(list(unpacked(data, rows, part)))
        return joined_state(block, rows, others) if others else block.state_dict()

    def close(self) -> None:
        self._group = self._host_group = None

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Gives every replica the first one's tensors. Blocks until they have come."""
        with self.waiting():
            for tensor in tensors:
                self._group.broadcast([tensor], dist.BroadcastOptions()).wait()

    def _sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replaces gradients by their sums over all replicas. Blocks until all of them have come here.

        DistributedDataParallel gives the same bits, but bears neither two backward passes of one step nor a kept graph.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._group.allreduce([flat], dist.AllreduceOptions()).wait()
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

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
            raise ConnectionError(f"{self._seat.name} waited in vain for {_others(self._seat)}: {first}") from error


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
            self._replicas.broadcast(self._statistics)
            self._is_evaluating = True
        return self._block.predict(x)


def join_replicas(seat: Seat, store: Store, device: torch.device, timeout_s: float, is_over: Callable[[], bool]) -> Replicas:
    """Joins the other replicas of a stage, if there are any; blocks until all have joined.

    Args:
        is_over: True once the wait has become pointless.

    Raises:
        ConnectionError: Another replica did not join in time; GivenUp where waiting became pointless.
    """
    if seat.replicas == 1:
        return Unreplicated()
    own, patience = PrefixStore(f"replicas{seat.stage}", store), Patience(_others(seat), timeout_s, is_over)
    host_group = make_gloo_group(own, seat.replica, seat.replicas, patience=patience, deadline_s=timeout_s)
    if device.type != "cuda":
        return DataParallel(seat, host_group, host_group)
    group = patience.call(lambda: _nccl_group(seat, PrefixStore("nccl", own), device, timeout_s))
    return DataParallel(seat, group, host_group)


def _nccl_group(seat: Seat, store: Store, device: torch.device, timeout_s: float) -> Any:
    """Connects one replica at once, on its own device. Not yet run on a GPU.

    A replica that is lost leaves the others waiting on their devices: the supervisor finds and ends them.
    """
    nccl: Any = dist.ProcessGroupNCCL
    options = nccl.Options()
    options._timeout = datetime.timedelta(seconds=timeout_s)
    options.group_name = f"replicas of stage {seat.stage}"
    make_current(device)
    group = nccl(store, seat.replica, seat.replicas, options)
    group.eager_connect_single_device(device)
    return group


def _others(seat: Seat) -> str:
    return f"the other replicas of stage {seat.stage}"
