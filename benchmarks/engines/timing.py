"""One way of timing for every engine: fresh processes, warm-up, a common start, a fixed number of steps."""

import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.distributed import FileStore, Store

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.workers.memory import keep_freed_memory, peak_memory_bytes, reset_peak_memory

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

CPU = torch.device("cpu")
TIMEOUT_S = 240.0
"""Of one measurement: an engine that takes longer is stuck."""


@dataclass(frozen=True)
class Case:
    """What is trained, how long, and in how many pieces.

    Attributes:
        overrides: Of the form section.key=value, upon the defaults; one block per stage.
        num_stages: Processes of a pipeline.
        warmup_steps: Before the clock starts.
        steps: While it runs.
    """

    overrides: tuple[str, ...]
    num_stages: int
    warmup_steps: int
    steps: int

    def plan(self, num_processes: int) -> Plan:
        """The same for everybody who trains this case with `num_processes` processes."""
        return make_plan(load_config(None, self.overrides), num_processes)

    @property
    def batch_size(self) -> int:
        """Samples of one step."""
        return load_config(None, self.overrides).data.batch_size

    def with_overrides(self, *overrides: str) -> "Case":
        """The same case with some settings replaced."""
        return Case((*self.overrides, *overrides), self.num_stages, self.warmup_steps, self.steps)


@dataclass(frozen=True)
class Seat:
    """Which process of an engine this one is."""

    rank: int
    num_processes: int
    store: Store


Step = Callable[[], None]
"""Trains one batch; returns when it may train the next."""


class Worker(Protocol):
    """What each process of an engine does: builds its part of a case, and returns its step. Picklable."""

    def __call__(self, case: Case, seat: Seat) -> Step: ...


class EngineError(RuntimeError):
    """An engine could not run a case; the first line of what it said."""


@dataclass(frozen=True)
class StepTime:
    """What one process takes.

    Attributes:
        wall_s: Seconds of a step on the clock.
        cpu_s: Seconds of its cores, likewise.
        peak_bytes: Its most resident memory at the end of training, above what it had before it built anything.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Together:
    """What the processes of a measurement share.

    Attributes:
        barrier: Where they start their clocks, and where they leave.
        working: How many must still be kept company with their timed steps.
    """

    barrier: Barrier
    working: "Synchronized[int]"


def step_times(worker: Worker, case: Case, num_processes: int, threads: int, *, independent: bool = False) -> list[StepTime]:
    """Runs `worker` in fresh processes of `threads` threads and times the steps after the warm-up.

    All processes start their clocks together; each stops its own after its last step.

    Args:
        independent: The processes do not wait for each other: those that are through with their steps go on working,
            untimed, until all are, so that nobody's last steps have the machine to themselves.

    Returns:
        What a step of every process takes.

    Raises:
        EngineError: A process failed, or they took longer than TIMEOUT_S.
    """
    context = multiprocessing.get_context("forkserver")
    together = Together(context.Barrier(num_processes), context.Value("i", num_processes if independent else 0))
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(num_processes)]
        processes = [
            context.Process(target=_work, args=(worker, case, rank, num_processes, threads, folder, together, pipe[1]))
            for rank, pipe in enumerate(pipes)
        ]
        for process in processes:
            process.start()
        for _, theirs in pipes:
            theirs.close()
        try:
            return _collect([ours for ours, _ in pipes])
        finally:
            for process in processes:
                process.join(2)
                process.kill()
                process.join()


def _collect(pipes: Sequence[Connection]) -> list[StepTime]:
    deadline, answers = time.monotonic() + TIMEOUT_S, dict[int, StepTime]()
    while len(answers) < len(pipes):
        pending = [pipe for rank, pipe in enumerate(pipes) if rank not in answers]
        ready = wait(pending, max(0.0, deadline - time.monotonic()))
        if not ready:
            raise EngineError(f"took longer than {TIMEOUT_S:g} s")
        for pipe in ready:
            rank = pipes.index(pipe)  # type: ignore[arg-type]
            try:
                answers[rank] = _unwrap(pipe.recv())  # type: ignore[union-attr]
            except EOFError:
                raise EngineError(f"process {rank} died") from None
    return [answers[rank] for rank in range(len(pipes))]


def _unwrap(answer: StepTime | str) -> StepTime:
    if isinstance(answer, str):
        raise EngineError(answer)
    return answer


def _work(
    worker: Worker,
    case: Case,
    rank: int,
    num_processes: int,
    threads: int,
    folder: str,
    together: Together,
    pipe: Connection,
) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    reset_peak_memory()
    idle_bytes = peak_memory_bytes(CPU)
    try:
        step = worker(case, Seat(rank, num_processes, FileStore(str(Path(folder) / "store"), num_processes)))
        for _ in range(case.warmup_steps):
            step()
        _synchronise()
        together.barrier.wait(TIMEOUT_S)
        started, started_cpu = time.perf_counter(), time.process_time()
        for _ in range(case.steps):
            step()
        _synchronise()
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
        pipe.send(StepTime(wall_s / case.steps, cpu_s / case.steps, peak_memory_bytes(CPU) - idle_bytes))
        with together.working:
            together.working.value -= 1
        while together.working.value > 0:
            step()
        # Nobody leaves while others may still need what this process owns.
        together.barrier.wait(TIMEOUT_S)
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send(_first_line(error))


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
