"""1F1B of torch.distributed.pipelining, trained to the end on the data of a run: accuracy, throughput and memory.

One block per stage. The network, its initial weights, the cut, the batches, the optimizer and the schedule are those of
the run that the same configuration gives; the loss is the cross-entropy of the network's classifier alone. Batch
normalisation sees micro-batches instead of batches, as in every pipeline engine that has micro-batches.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from benchmarks.engines.plain import join_group
from benchmarks.engines.timing import Seat
from benchmarks.engines.torch_pipelining import ChunkModule, cross_entropy, training_step
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.memory import keep_freed_memory, peak_memory_bytes

MICRO_BATCHES = 4


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


def train_one_f_one_b(
    overrides: Sequence[str],
    num_stages: int,
    *,
    warmup_steps: int,
    timeout_s: float,
    enter: Callable[[int], None] | None = None,
) -> Trained:
    """Trains with one process per stage, all on this host's CPU; blocks until they have ended.

    Args:
        overrides: Of the form section.key=value; `debug.slow_stage` and `debug.slow_factor` slow a stage.
        warmup_steps: Steps before the clock starts.
        enter: See launch.on_host.local_run.run_pipeline.

    Raises:
        TimeoutError: They took longer than `timeout_s`.
        RuntimeError: A process failed.
    """
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = context.Pipe(duplex=False)
        ranks = [
            context.Process(target=_run_rank, args=(list(overrides), rank, num_stages, folder, warmup_steps, theirs, enter))
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
    overrides: list[str],
    rank: int,
    num_stages: int,
    folder: str,
    warmup_steps: int,
    pipe: Connection,
    enter: Callable[[int], None] | None,
) -> None:
    if enter:
        enter(rank)
    plan = make_plan(load_config(None, overrides), num_stages)
    torch.set_num_threads(plan.config.placement.threads)
    keep_freed_memory()
    store = dist.FileStore(str(Path(folder) / "store"), num_stages)
    seat = Seat(rank, num_stages, store)
    join_group(seat, torch.device("cpu"))
    module = ChunkModule(plan, rank)
    samples_per_s = _train(plan, seat, module, warmup_steps)
    store.set(f"peak{rank}", str(peak_memory_bytes(torch.device("cpu"))))
    torch.save(module.state_dict(), Path(folder) / f"stage{rank}.pt")
    dist.barrier()
    if rank == num_stages - 1:
        peaks = [int(store.get(f"peak{stage}")) for stage in range(num_stages)]
        pipe.send(Trained(samples_per_s, _accuracy(plan, folder), peaks))
    dist.destroy_process_group()


def _train(plan: Plan, seat: Seat, module: ChunkModule, warmup_steps: int) -> float:
    """Samples per second after the warm-up."""
    slowed = plan.config.debug.slow_stage == seat.rank
    factor = plan.config.debug.slow_factor if slowed else 1.0
    stage = SlowedStage(module, seat.rank, seat.num_processes, torch.device("cpu"), factor=factor)
    schedule = Schedule1F1B(stage, MICRO_BATCHES, loss_fn=cross_entropy)
    step, steps = training_step(plan, seat, [module], schedule, torch.device("cpu")), plan.blueprint.total_steps
    for _ in range(warmup_steps):
        step()
    dist.barrier()
    started = time.perf_counter()
    for _ in range(steps - warmup_steps):
        step()
    return (steps - warmup_steps) * plan.config.data.batch_size / (time.perf_counter() - started)


@torch.no_grad()
def _accuracy(plan: Plan, folder: str) -> float:
    """Of the whole network, in evaluation mode, on the held-out part."""
    modules = [ChunkModule(plan, stage).eval() for stage in range(plan.placement.num_stages)]
    for stage, module in enumerate(modules):
        module.load_state_dict(torch.load(Path(folder) / f"stage{stage}.pt"))
    network = nn.Sequential(*modules)
    correct = total = 0
    for batch in BatchSource(plan.config.data, plan.config.training.seed).test_batches():
        correct += int((network(batch.images).argmax(1) == batch.labels).sum())
        total += len(batch.labels)
    return correct / total
