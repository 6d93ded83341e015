"""What a process holds before it trains: imports alone."""

import multiprocessing
from multiprocessing.connection import Connection

import torch

from benchmarks.engines.timing import TIMEOUT_S
from greedypipe.workers.memory import peak_memory_bytes


def idle_bytes() -> int:
    """Peak resident memory of a process that has imported what runs import and done nothing. Starts one; blocks.

    Raises:
        TimeoutError: It did not answer.
    """
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(theirs,))
    process.start()
    try:
        if not ours.poll(TIMEOUT_S):
            raise TimeoutError(f"waited {TIMEOUT_S:g} s for an idle process")
        found: int = ours.recv()
        return found
    finally:
        process.join()


def _report_peak(pipe: Connection) -> None:
    pipe.send(peak_memory_bytes(torch.device("cpu")))
