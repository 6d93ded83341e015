"""Step 8f: figures to publish. All processes share one GPU and take turns on it: nothing is a pipeline's speed-up."""

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from greedypipe.pipeline.batch import IMAGE, Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.execution.recorder import own_stream
from tests.gpu.facts import Facts, Setting
from tests.gpu.runs import blocks_of, device_of, well
from tests.gpu.runs import run as run_whole

STATE = "all processes share one GPU, time-sliced"
ROWS, STEPS, WARM_UP = 128, 40, 8
NETWORK = ("model.name=vgg8b", "model.width=1", "data.name=synthetic", "data.shape=[3,32,32]", "data.classes=10")
SMALL = ("model.width=0.1",)
SHOWN = (f"data.batch_size={ROWS}", "data.drop_last=true", "training.epochs=1", "optimizer.lr=0.05", "faults.timeout_s=30")
BLOCKS = "partition.blocks=4"
BATCHES = 150
PIPELINES = (1, 2, 4)


def run(found: Facts, setting: Setting) -> None:
    small = [*SMALL, "data.samples=256", "data.batch_size=32"] if setting.pretend else []
    for width in ("model.width=1", "model.width=0.25"):
        found.attempt(f"stages, {width}", partial(_stages, found, setting, [width, *small]))
    if not setting.pretend:
        found.attempt("memory", partial(_memory, found, setting))
        found.attempt("waits", partial(_waits, found, setting))
        found.attempt("kernels", partial(_kernels, found, setting))
        for graphs in ("off", "on"):
            for processes in PIPELINES if graphs == "off" else PIPELINES[-1:]:
                name = f"pipeline of {processes}, graphs {graphs}"
                found.attempt(name, partial(_pipeline, found, setting, processes, graphs))


def _overrides(*more: str) -> list[str]:
    return [*NETWORK, f"data.samples={ROWS * BATCHES}", *SHOWN, "training.epochs=1000", *more]


def _stages(found: Facts, setting: Setting, more: list[str]) -> None:
    """Milliseconds of a turn of each block, and of back-propagation, with and without graphs; what follows for 4 GPUs."""
    device, steps = device_of(setting), 2 if setting.pretend else STEPS
    forms = ("off",) if setting.pretend else ("off", "on")
    own: dict[str, list[float]] = {}
    whole: dict[str, float] = {}
    for graphs in forms:
        _, blocks = blocks_of(_overrides(BLOCKS, f"training.graphs={graphs}", *more), device)
        own[graphs] = [_turn_ms(block, device, steps, more) for block in blocks]
        _, (network,) = blocks_of(_overrides("partition.blocks=1", f"training.graphs={graphs}", *more), device)
        whole[graphs] = _turn_ms(network, device, steps, more)
    for index, eager in enumerate(own["off"]):
        graph = own["on"][index] if "on" in own else None
        share = None if graph is None else round(1 - graph / eager, 3)
        found.row("stage", block=index, of=more[0], eager_ms=eager, graph_ms=graph, launch_bound_share=share)
    for graphs in forms:
        slowest, rate = max(own[graphs]), 1e3 / whole[graphs]
        columns = {"of": more[0], "graphs": graphs, "back_propagation_steps_s": round(rate, 1)}
        found.row("prediction", gpus=len(own[graphs]), steps_s=round(1e3 / slowest, 1), link="not counted", **columns)


def _turn_ms(block: Block, device: torch.device, steps: int, more: list[str]) -> float:
    rows = next((int(one.split("=")[1]) for one in more if one.startswith("data.batch_size=")), ROWS)
    x, batch = _given(block, rows, device)
    with own_stream(device):
        for _ in range(min(WARM_UP, steps)):
            _turn(block, x, batch)
        seconds = [_timed(partial(_turn, block, x, batch), steps, device) for _ in range(3)]
    return round(1e3 * statistics.median(seconds), 4)


def _given(block: Block, rows: int, device: torch.device) -> tuple[Tensor, Batch]:
    generator = torch.Generator().manual_seed(block.index)
    x = torch.randn(rows, *block.shapes.input, generator=generator).to(device)
    labels = torch.randint(block.site.task.outputs, (rows,), generator=generator).to(device)
    return block.precision.canonical(x), Batch(0, labels, {IMAGE: x})


def _turn(block: Block, x: Tensor, batch: Batch) -> None:
    block.forward(x, batch)
    block.learn()


def _timed(turn: Callable[[], None], steps: int, device: torch.device) -> float:
    """Seconds of a turn, the device's work included."""
    settle = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    settle()
    started = time.perf_counter()
    for _ in range(steps):
        turn()
    settle()
    return (time.perf_counter() - started) / steps


def _memory(found: Facts, setting: Setting) -> None:
    """Of one process with the whole network, as blocks and under back-propagation."""
    device = device_of(setting)
    for name, blocks_key in (("4 blocks", BLOCKS), ("back-propagation", "partition.blocks=1")):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _, blocks = blocks_of(_overrides(blocks_key), device)
        for _ in range(WARM_UP):
            for block in blocks:
                _turn(block, *_given(block, ROWS, device))
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        found.row(
            "memory",
            what=name,
            allocated_mib=torch.cuda.max_memory_allocated() >> 20,
            reserved_mib=torch.cuda.max_memory_reserved() >> 20,
            whole_gpu_used_mib=(total - free) >> 20,
        )
        del blocks


def _waits(found: Facts, setting: Setting) -> None:
    """Calls that wait for the device, per 1000 turns of a block, as torch counts them."""
    device = device_of(setting)
    _, blocks = blocks_of(_overrides(BLOCKS), device)
    for block in blocks:
        x, batch = _given(block, ROWS, device)
        _turn(block, x, batch)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(STEPS):
                _turn(block, x, batch)
        torch.cuda.set_sync_debug_mode("default")
        count = sum("synchroniz" in str(one.message) for one in told)
        found.row("waits", block=block.index, per_1000_turns=round(1000 * count / STEPS))


def _kernels(found: Facts, setting: Setting) -> None:
    """What a turn of a block puts on the GPU: kernels and copies, as torch's profiler counts them."""
    device, kinds = device_of(setting), [torch.profiler.ProfilerActivity.CUDA]
    _, blocks = blocks_of(_overrides(BLOCKS), device)
    for block in blocks:
        x, batch = _given(block, ROWS, device)
        _turn(block, x, batch)
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=kinds) as told:
            _turn(block, x, batch)
            torch.cuda.synchronize()
        on_gpu = [one for one in told.key_averages() if one.device_type == torch.autograd.DeviceType.CUDA]
        found.row("kernels", block=block.index, per_turn=sum(one.count for one in on_gpu))


def _pipeline(found: Facts, setting: Setting, processes: int, graphs: str) -> dict[str, Any]:
    """Samples per second of a whole run; with one process, of the sequential loop over all blocks."""
    overrides = [
        *NETWORK,
        f"data.samples={ROWS * BATCHES}",
        *SHOWN,
        BLOCKS,
        f"training.graphs={graphs}",
        "placement.device=cuda",
    ]
    outcome = well(run_whole(overrides, processes, setting, f"rows_{processes}_{graphs}"))
    link = outcome.reports[0].link
    rate, messages = outcome.summary["samples_per_s"], max(1, outcome.reports[0].batches)
    found.row(
        "training",
        processes=processes,
        graphs=graphs,
        samples_s=round(rate),
        transport=link.transport,
        send_us=round(1e6 * link.send_s / messages, 1),
        sent_bytes_per_batch=round(link.sent_bytes / messages),
        state=STATE,
    )
    return {"samples_s": round(rate)}
