"""1F1B of torch.distributed.pipelining, trained to the end on the data of a run: accuracy, throughput and memory.

The network, its initial weights, the cut, the batches, the optimizer and the schedule are those of the run that the same
configuration gives; the loss is the cross-entropy of the network's classifier alone. Batch normalisation sees
micro-batches instead of batches, as in every pipeline engine that has micro-batches.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.nn import functional

from launch.config import load_config
from launch.memory import peak_memory_bytes
from launch.preflight import Plan, make_plan
from pipeline.optimizer import build_optimizer, build_schedule
from pipeline.precision import Precision
from workers.data.source import BatchSource

MICRO_BATCHES = 8


@dataclass(frozen=True)
class Trained:
    """What a run has given.

    Attributes:
        samples_per_s: Without the warm-up.
        accuracy: Of the held-out part, in [0, 1].
        peak_memory_bytes: Of every process up to the end of training, by stage.
    """

    samples_per_s: float
    accuracy: float
    peak_memory_bytes: list[int]


class SlowedStage(PipelineStage):
    """A stage that sleeps after every forward and backward, `factor` - 1 times as long as it took."""

    def __init__(self, *arguments: Any, factor: float) -> None:
        super().__init__(*arguments)
        self._factor = factor

    def forward_one_chunk(self, *arguments: Any, **keywords: Any) -> Any:
        return self._slowed(super().forward_one_chunk, *arguments, **keywords)

    def backward_one_chunk(self, *arguments: Any, **keywords: Any) -> Any:
        return self._slowed(super().backward_one_chunk, *arguments, **keywords)

    def _slowed(self, step: Any, *arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        result = step(*arguments, **keywords)
        time.sleep((self._factor - 1) * (time.perf_counter() - started))
        return result


def train_one_f_one_b(overrides: Sequence[str], num_stages: int, *, warmup_steps: int, timeout_s: float) -> Trained:
    """Trains with one process per stage, all on this host's CPU; blocks until they have ended.

    Args:
        overrides: Of the form section.key=value; `debug.slow_stage` and `debug.slow_factor` slow a stage.
        warmup_steps: Steps before the clock starts.

    Raises:
        TimeoutError: They took longer than `timeout_s`.
        RuntimeError: A process failed.
    """
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = context.Pipe(duplex=False)
        ranks = [
            context.Process(target=_run_rank, args=(list(overrides), rank, num_stages, folder, warmup_steps, theirs))
            for rank in range(num_stages)
        ]
        for process in ranks:
            process.start()
        theirs.close()
        try:
            return _result(ours, timeout_s)
        finally:
            for process in ranks:
                process.join(5)
                process.kill()


def _result(pipe: Connection, timeout_s: float) -> Trained:
    if not pipe.poll(timeout_s):
        raise TimeoutError(f"waited {timeout_s:g} s for the last stage of 1F1B")
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError("a process of 1F1B failed; its message is on standard error") from None


def _run_rank(
    overrides: list[str], rank: int, num_stages: int, folder: str, warmup_steps: int, pipe: Connection
) -> None:
    plan = make_plan(load_config(None, overrides), num_stages)
    torch.set_num_threads(plan.config.placement.threads)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(str(Path(folder) / "store"), num_stages)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=num_stages, timeout=timedelta(seconds=60))
    module = StageModule(plan, rank)
    samples_per_s = _train(plan, rank, module, warmup_steps)
    store.set(f"peak{rank}", str(peak_memory_bytes(torch.device("cpu"))))
    torch.save(module.state_dict(), Path(folder) / f"stage{rank}.pt")
    dist.barrier()
    if rank == num_stages - 1:
        peaks = [int(store.get(f"peak{stage}")) for stage in range(num_stages)]
        pipe.send(Trained(samples_per_s, _accuracy(plan, folder), peaks))
    dist.destroy_process_group()


class _Enter(torch.autograd.Function):
    """From the engine's contiguous activations to the run's memory layout; gradients the other way."""

    @staticmethod
    def forward(context: Any, x: Tensor, precision: Precision) -> Tensor:
        return precision.canonical(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.contiguous(), None


class StageModule(nn.Module):
    """The layers of a stage's blocks without auxiliary heads; the last stage has the network's classifier too.

    Inside, 4-d activations have the run's memory layout; at its ends they are contiguous, as the engine demands.
    """

    def __init__(self, plan: Plan, stage: int) -> None:
        super().__init__()
        self._precision = plan.blueprint.precision
        hosted = plan.placement.blocks_of(stage)
        layers = [layer.module for block in hosted for layer in plan.blueprint.layers_of(block)]
        if stage == plan.placement.num_stages - 1:
            layers.append(plan.blueprint.network.classifier.module)
        self.layers = nn.Sequential(*layers)
        if self._precision.channels_last:
            self.layers.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """[N, *input shape] to [N, *output shape], in the precision of the run."""
        with self._precision.autocast(x.device):
            return self.layers(_Enter.apply(x, self._precision)).contiguous()


def _train(plan: Plan, rank: int, module: StageModule, warmup_steps: int) -> float:
    """Samples per second after the warm-up."""
    config, last = plan.config, plan.placement.num_stages - 1
    optimizer = build_optimizer(config.optimizer, list(module.parameters()))
    steps = plan.blueprint.total_steps
    lr_schedule = build_schedule(config.optimizer, optimizer, plan.blueprint.task.steps_per_epoch, steps)
    factor = config.debug.slow_factor if config.debug.slow_stage == rank else 1.0
    stage = SlowedStage(module, rank, last + 1, torch.device("cpu"), factor=factor)
    schedule = Schedule1F1B(stage, MICRO_BATCHES, loss_fn=functional.cross_entropy)
    source = BatchSource(config.data, config.training.seed)
    for step in range(steps):
        if step == warmup_steps:
            dist.barrier()
            started = time.perf_counter()
        batch = source.training_batch(step) if rank in (0, last) else None
        optimizer.zero_grad(set_to_none=True)
        inputs = (batch.images,) if rank == 0 and batch else ()
        schedule.step(*inputs, **({"target": batch.labels} if rank == last and batch else {}))
        optimizer.step()
        lr_schedule.step()
    return (steps - warmup_steps) * config.data.batch_size / (time.perf_counter() - started)


@torch.no_grad()
def _accuracy(plan: Plan, folder: str) -> float:
    """Of the whole network, in evaluation mode, on the held-out part."""
    modules = [StageModule(plan, stage).eval() for stage in range(plan.placement.num_stages)]
    for stage, module in enumerate(modules):
        module.load_state_dict(torch.load(Path(folder) / f"stage{stage}.pt"))
    network = nn.Sequential(*modules)
    correct = total = 0
    for batch in BatchSource(plan.config.data, plan.config.training.seed).test_batches():
        correct += int((network(batch.images).argmax(1) == batch.labels).sum())
        total += len(batch.labels)
    return correct / total
