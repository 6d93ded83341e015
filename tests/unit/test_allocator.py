"""Memory that a step frees serves the next one."""

import multiprocessing
import resource
from multiprocessing.connection import Connection

import torch

from greedypipe.workers.memory import keep_freed_memory

BYTES, ROUNDS = 64 << 20, 4


def use(rounds: int) -> None:
    for _ in range(rounds):
        first, second = (torch.ones(BYTES, dtype=torch.uint8) for _ in range(2))
        del first, second


def count_faults(pipe: Connection, keep: bool) -> None:
    """Page faults of making and freeing large tensors again and again, the first rounds aside."""
    kept = keep and keep_freed_memory()
    use(ROUNDS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    use(ROUNDS)
    pipe.send((kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))


def faults(keep: bool) -> tuple[bool, int]:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("forkserver").Process(target=count_faults, args=(theirs, keep))
    process.start()
    try:
        assert ours.poll(60), "the process has not answered"
        return ours.recv()
    finally:
        process.join()


def test_freed_memory_is_used_again_where_the_library_can_keep_it() -> None:
    (kept, few), (_, many) = faults(keep=True), faults(keep=False)
    assert few < many / 2 if kept else few > 0
