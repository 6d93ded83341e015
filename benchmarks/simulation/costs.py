"""What a simulated pipeline is made of."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from greedypipe.buffers.replay import BuffersConfig
from greedypipe.workers.inbox import SLOTS_BEYOND_BUFFER
from greedypipe.workers.links.interface import LinkConfig


@dataclass(frozen=True)
class StageCost:
    """Seconds per batch of one stage's own work.

    Attributes:
        forward_s: Up to sending; includes the copy into the next stage's slot where that is the sender's.
        learn_s: From sending to the next read.
        slow_factor: After that it sleeps, without a core, until the batch has taken so many times what it took to compute;
            as workers.around.scripted_faults.SlowedBlock does.
        jitter: Coefficient of variation of the whole; lognormal, drawn anew for every batch.
        replicas: Processes that share the stage's batches in turn.
    """

    forward_s: float
    learn_s: float
    slow_factor: float = 1.0
    jitter: float = 0.0
    replicas: int = 1

    @property
    def own_s(self) -> float:
        """All of it."""
        return (self.forward_s + self.learn_s) * self.slow_factor


@dataclass(frozen=True)
class LinkCost:
    """One link between hosts; without arguments one that takes no time, as shared memory, whose copy is the sender's."""

    sent_bytes: float = 0.0
    bytes_per_s: float = math.inf
    latency_s: float = 0.0


@dataclass(frozen=True)
class Pipeline:
    """Stages, the link behind each but the last, the buffer before each but the first.

    Attributes:
        cores: Shared equally by all stages that compute; 0: each has a device of its own.
    """

    stages: Sequence[StageCost]
    link: LinkCost = LinkCost()
    buffers: BuffersConfig = field(default_factory=BuffersConfig)
    link_slots: int = field(default_factory=lambda: LinkConfig().slots)
    cores: int = 0
    seed: int = 0

    @property
    def slots(self) -> int:
        """Messages that are on their way to a stage or held by it at most, as over shared memory."""
        return self.buffers.capacity + SLOTS_BEYOND_BUFFER + self.link_slots


def jitter_factors(jitter: float, *seed: int) -> Iterator[float]:
    """Endless lognormal factors of mean 1 and coefficient of variation `jitter`."""
    generator = random.Random(":".join(map(str, seed)))
    sigma = math.sqrt(math.log1p(jitter**2))
    while True:
        yield generator.lognormvariate(-(sigma**2) / 2, sigma) if jitter else 1.0
