"""Training in loops that anybody would write: back-propagation, synchronous DGL in one process, DDP, one stage alone."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from benchmarks.engines.timing import TIMEOUT_S, Case, Seat, Step
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.pipeline.optimizer import build_optimizer, build_schedule
from greedypipe.workers.around.scripted_faults import trouble
from greedypipe.workers.around.shell import AnyBlock
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.inbox import SLOTS_BEYOND_BUFFER
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.links.slots import new_slot


class WholeNetwork(nn.Module):
    """All layers and the classifier, in the precision and memory layout of the run."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        network, self._precision = plan.blueprint.network, plan.blueprint.precision
        self.layers = nn.Sequential(*(layer.module for layer in (*network.layers, network.classifier)))
        if self._precision.channels_last:
            self.layers.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] to logits [N, classes]."""
        with self._precision.autocast(images.device):
            return self.layers(self._precision.canonical(images))


def back_propagation(case: Case, seat: Seat) -> Step:
    """Forward through all layers, one loss, backward through all layers, one optimizer."""
    plan = case.plan(1)
    device = plan.placement.device_of(seat.rank, plan.config.placement)
    return supervised_step(plan, WholeNetwork(plan).to(device), device)


def ddp(case: Case, seat: Seat) -> Step:
    """torch's DistributedDataParallel: every process trains the whole network on its share of each batch."""
    share = f"data.batch_size={case.batch_size // seat.num_processes}"
    plan = case.with_overrides(share, f"training.seed={seat.rank}").plan(1)
    device = plan.placement.device_of(seat.rank, plan.config.placement)
    join_group(seat, device)
    return supervised_step(plan, DistributedDataParallel(WholeNetwork(plan).to(device)), device)


Backward = Callable[[nn.Module, Tensor, Tensor], None]
"""Adds the gradients of a batch's mean loss: network, images [N, C, H, W], labels [N]."""


def whole_backward(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Forward and backward with the whole batch at once."""
    functional.cross_entropy(network(images).float(), labels).backward()  # type: ignore[no-untyped-call]


def supervised_step(plan: Plan, network: nn.Module, device: torch.device, backward: Backward = whole_backward) -> Step:
    """A step of one optimizer over all layers, on the training batches of the plan."""
    optimizer = build_optimizer(plan.config.optimizer, list(network.parameters()))
    blueprint = plan.blueprint
    schedule = build_schedule(plan.config.optimizer, optimizer, blueprint.steps_per_epoch, blueprint.total_steps)
    batches = BatchSource(plan.config.data, plan.config.training.seed).training_batches()

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad(set_to_none=True)
        backward(network, batch.images.to(device), batch.labels.to(device))
        optimizer.step()
        schedule.step()

    return step


def sequential_dgl(case: Case, seat: Seat) -> Step:
    """All blocks in one process, one after the other: the work of a decoupled pipeline without its processes."""
    plan = case.plan(1)
    device = plan.placement.device_of(seat.rank, plan.config.placement)
    blocks = [plan.blueprint.build_block(index, device) for index in range(plan.blueprint.num_blocks)]
    batches = BatchSource(plan.config.data, plan.config.training.seed).training_batches()

    def step() -> None:
        batch = next(batches)
        image = batch.images.to(device)
        _train(blocks, image, batch.labels.to(device), image)

    return step


@dataclass(frozen=True)
class StageAlone:
    """One stage's own work without any link: stage 0 makes its batches, the others train on one activation again and
    again. With `stage` None every process takes the stage of its rank: all stages at once, sharing caches and cores. A
    stage that `debug` slows is slowed here too. With `copies` it copies every activation into slots of its own, as into
    those of a shared-memory link, but tells nobody."""

    stage: int | None
    copies: bool = False

    def __call__(self, case: Case, seat: Seat) -> Step:
        stage = seat.rank if self.stage is None else self.stage
        plan = case.plan(case.num_stages)
        device = plan.placement.device_of(seat.rank, plan.config.placement)
        own = [plan.blueprint.build_block(index, device) for index in plan.placement.blocks_of(stage)]
        blocks = trouble(own, stage, plan.config.debug)
        source = BatchSource(plan.config.data, plan.config.training.seed)
        batches, batch = source.training_batches(), source.training_batch(0)
        image, labels = batch.images.to(device), batch.labels.to(device)
        hand_over = _copier(plan, stage) if self.copies and stage < case.num_stages - 1 else _nothing
        if stage == 0:
            return lambda: _train(blocks, (now := next(batches)).images.to(device), now.labels.to(device), image, hand_over)
        before = [plan.blueprint.build_block(index, device) for index in range(blocks[0].index)]
        x = image
        for block in before:
            x = block.pass_through(x)
        return lambda: _train(blocks, x, labels, image, hand_over)


HandOver = Callable[[Tensor, Tensor], object]
"""What is done with a batch's activation and labels before the last block learns."""


def _nothing(x: Tensor, labels: Tensor) -> None:
    pass


def _copier(plan: Plan, stage: int) -> HandOver:
    layout = plan.layout_after(stage)
    slots = itertools.cycle([new_slot(layout) for _ in range(plan.config.buffers.capacity + SLOTS_BEYOND_BUFFER)])
    return lambda x, labels: next(slots).pack(Message(Kind.TRAIN, 0, tensors={"labels": labels, "activation": x}))


def _train(blocks: Sequence[AnyBlock], x: Tensor, labels: Tensor, image: Tensor, hand_over: HandOver = _nothing) -> None:
    batch = Batch(0, labels, {IMAGE: image})
    for block in blocks:
        x = block.forward(x, batch)
        if block is blocks[-1]:
            hand_over(x, labels)
        block.learn()


def join_group(seat: Seat, device: torch.device) -> None:
    """NCCL where every process has a GPU of its own, gloo otherwise."""
    own_gpu = device.type == "cuda" and torch.cuda.device_count() >= seat.num_processes
    dist.init_process_group(
        "nccl" if own_gpu else "gloo",
        store=seat.store,
        rank=seat.rank,
        world_size=seat.num_processes,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
