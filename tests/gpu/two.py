"""Two processes for a step, with a pipe between them, and what becomes of them."""

import faulthandler
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from tests.gpu.facts import Facts, Setting

End = Callable[[Facts, Setting, int, Connection], None]
"""One end: rank 0 or 1, with its end of the pipe. Picklable."""
EXIT_MARGIN_S = 5.0


def run_two(end: End, found: Facts, setting: Setting, limit_s: float) -> list[int | str]:
    """Runs both ends to their end or the deadline; returns their exit codes.

    Each is a process of its own that has never touched CUDA, so that neither inherits a context.
    """
    # A fork server has imported torch for the tests already; a GPU's step takes no chances.
    context = multiprocessing.get_context("forkserver" if setting.pretend else "spawn")
    pipes = context.Pipe()
    processes = [
        context.Process(target=_in_process, args=(end, found.step, setting, rank, pipe, limit_s))
        for rank, pipe in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for pipe in pipes:
        pipe.close()
    deadline = time.monotonic() + limit_s + EXIT_MARGIN_S
    return [_code(process, deadline) for process in processes]


def _code(process: Any, deadline: float) -> int | str:
    process.join(max(0.1, deadline - time.monotonic()))
    if process.is_alive():
        process.kill()
        process.join()
        return "killed at the deadline"
    return int(process.exitcode)


def _in_process(end: End, step: str, setting: Setting, rank: int, pipe: Connection, limit_s: float) -> None:
    faulthandler.dump_traceback_later(limit_s, exit=True)
    torch.set_num_threads(1)
    found = Facts(setting.out, step)
    end(found, setting, rank, pipe)
    sys.stdout.flush()
    # Not by way of the interpreter's end, where torch's threads may wait for a peer that is gone.
    os._exit(found.failed)


def told(pipe: Connection, seconds: float) -> Any:
    """What the other end has sent.

    Raises:
        TimeoutError: Nothing came in time.
        EOFError: The other end is gone.
    """
    if not pipe.poll(seconds):
        raise TimeoutError(f"waited {seconds:g} s for the other process")
    return pipe.recv()
