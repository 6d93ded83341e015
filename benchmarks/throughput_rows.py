"""What benchmarks.throughput measures: sections of rows, and the figures that are made of them."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engines import greedypipe
from benchmarks.engines.plain import StageAlone, back_propagation, ddp, sequential_dgl
from benchmarks.engines.timing import Case, Worker, step_times
from benchmarks.engines.torch_pipelining import Pipelining

SCHEDULES = {
    "GPipe": "GPipe",
    "1F1B": "1F1B",
    "interleaved": "Interleaved1F1B",
    "zero-bubble": "InterleavedZeroBubble",
}
ONE_BLOCK = ("partition.blocks=1", "partition.boundaries=[]")
CORES = len(os.sched_getaffinity(0))
ALL_THREADS = f"back-propagation, {CORES} threads"
ONE_THREAD = "back-propagation, 1 thread"
FIFO, REPLAY, SINGLE = "greedypipe, FIFO", "greedypipe, replay", "greedypipe, one block"


@dataclass(frozen=True)
class Rate:
    """One measurement of one row; `stages` of the run's summary where the row is a run of ours."""

    samples_per_s: float
    stages: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Row:
    """One way of training a case."""

    name: str
    group: str
    measure: Callable[[], Rate]


@dataclass(frozen=True)
class Figure:
    """A quotient of rates of one repeat, and what it should reach; None where it is only reported."""

    name: str
    target: float | None
    value: Callable[[Mapping[str, float]], float]


@dataclass(frozen=True)
class Section:
    """Rows that are measured in turn, and the figures made of them."""

    name: str
    case: Case
    rows: Sequence[Row]
    figures: Sequence[Figure]


def headline(case: Case, micro_batches: Sequence[int], chunk_overrides: Sequence[str]) -> Section:
    """Everything that a user might pick, on the same network, and what no pipeline can exceed."""
    stages = case.num_stages
    rows = [
        _worker(ONE_THREAD, "back-propagation", back_propagation, case, 1, 1),
        _worker(ALL_THREADS, "back-propagation", back_propagation, case, 1, CORES),
        _worker(f"DDP, {stages} processes", "back-propagation", ddp, case, stages, 1),
        _worker("DGL in one loop, 1 thread", "one process", sequential_dgl, case, 1, 1),
        _ours(SINGLE, case, 1, *ONE_BLOCK),
        *(_pipelining(name, count, case, chunk_overrides) for name in SCHEDULES for count in micro_batches),
        _ours(FIFO, case, stages),
        _ours(REPLAY, case, stages, "buffers.policy=replay", "buffers.max_reuse=0"),
        *_bounds(case),
    ]
    pipelining = [row.name for row in rows if row.group == "torch pipelining"]
    return Section(
        "headline",
        case,
        rows,
        [
            Figure("FIFO / bound (stages alone)", 0.97, lambda rate: rate[FIFO] / _bound(rate, stages)),
            Figure("FIFO / bound (all stages at once)", None, lambda rate: rate[FIFO] / rate["bound, all stages at once"]),
            Figure(
                "FIFO / best torch pipelining",
                1.4,
                lambda rate: rate[FIFO] / max(rate[name] for name in pipelining if name in rate),
            ),
            Figure(f"FIFO / {ONE_THREAD}", 1.7, lambda rate: rate[FIFO] / rate[ONE_THREAD]),
            Figure(f"FIFO / {ALL_THREADS}", 1.0, lambda rate: rate[FIFO] / rate[ALL_THREADS]),
            Figure(
                f"total work / {CORES} cores / {ALL_THREADS}",
                None,
                lambda rate: _work_bound(rate, stages) / rate[ALL_THREADS],
            ),
            Figure(f"{SINGLE} / {ONE_THREAD}", 0.98, lambda rate: rate[SINGLE] / rate[ONE_THREAD]),
        ],
    )


def crowded(case: Case) -> Section:
    """More stages than cores: nothing beats total work / cores."""
    stages = case.num_stages
    rows = [_ours(FIFO, case, stages), *_bounds(case)]
    return Section(
        f"{stages} stages on {CORES} cores",
        case,
        rows,
        [
            Figure(f"FIFO / (total work / {CORES} cores)", 0.93, lambda rate: rate[FIFO] / _work_bound(rate, stages)),
            Figure("FIFO / bound (all stages at once)", None, lambda rate: rate[FIFO] / rate["bound, all stages at once"]),
        ],
    )


def tiny(case: Case) -> Section:
    """Steps of about a millisecond: what the loop, the buffer and the link cost."""
    stages = case.num_stages
    rows = [_ours(FIFO, case, stages), _worker(ONE_THREAD, "back-propagation", back_propagation, case, 1, 1), *_bounds(case)]
    return Section(
        "tiny steps",
        case,
        rows,
        [
            Figure("FIFO / bound (stages alone)", 0.85, lambda rate: rate[FIFO] / _bound(rate, stages)),
            Figure("FIFO / bound (all stages at once)", None, lambda rate: rate[FIFO] / rate["bound, all stages at once"]),
        ],
    )


def _bounds(case: Case) -> list[Row]:
    alone = [_worker(_alone(stage), "bound", StageAlone(stage), case, 1, 1) for stage in range(case.num_stages)]
    return [*alone, _worker("bound, all stages at once", "bound", StageAlone(None), case, case.num_stages, 1)]


def _alone(stage: int) -> str:
    return f"stage {stage} alone"


def _bound(rate: Mapping[str, float], stages: int) -> float:
    return min(rate[_alone(stage)] for stage in range(stages))


def _work_bound(rate: Mapping[str, float], stages: int) -> float:
    return CORES / sum(1 / rate[_alone(stage)] for stage in range(stages))


def _worker(name: str, group: str, worker: Worker, case: Case, num_processes: int, threads: int) -> Row:
    def measure() -> Rate:
        return Rate(case.batch_size / max(one.wall_s for one in step_times(worker, case, num_processes, threads)))

    return Row(name, group, measure)


def _pipelining(name: str, micro_batches: int, case: Case, chunk_overrides: Sequence[str]) -> Row:
    overrides = tuple(chunk_overrides) if name in ("interleaved", "zero-bubble") else ()
    worker = Pipelining(SCHEDULES[name], micro_batches, overrides)
    return _worker(f"{name}, m={micro_batches}", "torch pipelining", worker, case, case.num_stages, 1)


def _ours(name: str, case: Case, num_processes: int, *overrides: str) -> Row:
    def measure() -> Rate:
        ran = greedypipe.run(case, num_processes, *overrides)
        return Rate(ran.samples_per_s, ran.stages)

    return Row(name, "greedypipe", measure)
