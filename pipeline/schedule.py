"""Which block acts next when all of them live in one process: pure generators of block indices."""

import random
from collections.abc import Iterator, Sequence


def lockstep(num_blocks: int) -> Iterator[int]:
    """Every block once per round, in order: synchronous DGL.

    0 1 2 | 0 1 2 | 0 1 2 ...
    """
    while True:
        yield from range(num_blocks)


def random_order(speeds: Sequence[float], seed: int) -> Iterator[int]:
    """Blocks drawn with probabilities proportional to `speeds`: asynchronous DGL (Algorithm 2).

    A warm-up of two turns each, as in the published code, fills the buffers first:

    0 0 1 1 2 2 | 1 0 2 2 0 ...
    """
    generator = random.Random(seed)
    for block in range(len(speeds)):
        yield from (block, block)
    while True:
        yield generator.choices(range(len(speeds)), weights=speeds)[0]
