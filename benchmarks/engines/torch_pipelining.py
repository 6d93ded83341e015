"""The schedules of torch.distributed.pipelining on the network of a run.

Batch normalisation sees micro-batches instead of batches, and what is sent between stages must be contiguous whatever
the memory layout inside: both are the engine's. The loss is the cross-entropy of the network's classifier alone: no
auxiliary head is computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleMulti, get_schedule_class
from torch.nn import functional

from benchmarks.engines.plain import join_group
from benchmarks.engines.timing import Case, Seat, Step
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.pipeline.optimizer import build_optimizer, build_schedule
from greedypipe.pipeline.precision import Precision
from greedypipe.workers.data.source import BatchSource


class _Enter(torch.autograd.Function):
    """From the engine's contiguous activations to the run's memory layout; gradients the other way."""

    @staticmethod
    def forward(context: Any, x: Tensor, precision: Precision) -> Tensor:
        return precision.canonical(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.contiguous(), None


class ChunkModule(nn.Module):
    """The layers of one block without auxiliary head; the last one has the network's classifier too.

    Inside, 4-d activations have the run's memory layout; at its ends they are contiguous, as the engine demands.
    """

    def __init__(self, plan: Plan, block: int) -> None:
        super().__init__()
        self._precision = plan.blueprint.precision
        layers = [layer.module for layer in plan.blueprint.layers_of(block)]
        if block == plan.blueprint.num_blocks - 1:
            layers.append(plan.blueprint.network.classifier.module)
        self.layers = nn.Sequential(*layers)
        if self._precision.channels_last:
            self.layers.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """[N, *input shape] to [N, *output shape], in the precision of the run."""
        with self._precision.autocast(x.device):
            return self.layers(_Enter.apply(x, self._precision)).contiguous()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """In fp32, whatever the precision of the network."""
    return functional.cross_entropy(logits.float(), labels)


@dataclass(frozen=True)
class Pipelining:
    """A schedule at a number of micro-batches.

    Attributes:
        schedule: As torch names its class.
        micro_batches: Per batch.
        chunk_overrides: Settings of the cut: as many blocks as the schedule has stages, in all processes together.
    """

    schedule: str
    micro_batches: int
    chunk_overrides: tuple[str, ...] = ()

    def __call__(self, case: Case, seat: Seat) -> Step:
        plan = case.with_overrides(*self.chunk_overrides).plan(seat.num_processes)
        device = plan.placement.device_of(seat.rank, plan.config.placement)
        join_group(seat, device)
        schedule_class = get_schedule_class(self.schedule)
        chunks = plan.blueprint.num_blocks
        # Looped placement: chunk i lives in process i mod P.
        mine = range(seat.rank, chunks, seat.num_processes)
        modules = [ChunkModule(plan, chunk).to(device) for chunk in mine]
        stages = [PipelineStage(module, chunk, chunks, device) for module, chunk in zip(modules, mine, strict=True)]
        several = issubclass(schedule_class, PipelineScheduleMulti)
        schedule = schedule_class(
            stages if several else stages[0],  # type: ignore[arg-type]
            self.micro_batches,
            loss_fn=cross_entropy,
        )
        return training_step(plan, seat, modules, schedule, device)


def training_step(plan: Plan, seat: Seat, modules: Sequence[nn.Module], schedule: Any, device: torch.device) -> Step:
    """One batch through the schedule, and one step of this process's optimizer."""
    config, last = plan.config, seat.num_processes - 1
    optimizer = build_optimizer(config.optimizer, [parameter for module in modules for parameter in module.parameters()])
    blueprint = plan.blueprint
    lr_schedule = build_schedule(config.optimizer, optimizer, blueprint.steps_per_epoch, blueprint.total_steps)
    batches = BatchSource(config.data, config.training.seed).training_batches() if seat.rank in (0, last) else None

    def step() -> None:
        batch = next(batches) if batches else None
        images = (batch.images.to(device),) if batch and seat.rank == 0 else ()
        target = {"target": batch.labels.to(device)} if batch and seat.rank == last else {}
        optimizer.zero_grad(set_to_none=True)
        schedule.step(*images, **target)
        optimizer.step()
        lr_schedule.step()

    return step
