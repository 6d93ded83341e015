"""A decoupled pipeline in simulated time: the loop of workers.stage, the real buffers.replay, links with costs."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.simulation.costs import Pipeline, jitter_factors
from benchmarks.simulation.events import Clock, Compute, Process, Signal, Sleep
from greedypipe.buffers.replay import Policy, Read, ReplayBuffer
from greedypipe.buffers.stats import BufferStats


@dataclass(frozen=True)
class StageOutcome:
    """What one stage did, replicas together; fractions are of the time of all of them after the warm-up.

    Attributes:
        batches_per_s: Its own throughput.
        peak_slots: Most messages on their way to it or held by it at once, per replica.
    """

    batches_per_s: float
    wait_input_fraction: float
    wait_room_fraction: float
    staleness_mean: float
    staleness_max: int
    reuse_mean: float
    dropped: int
    peak_slots: int


def simulate(pipeline: Pipeline, batches: int, warmup: int) -> list[StageOutcome]:
    """Simulates until every stage has done `batches` batches, the first `warmup` of each not counted.

    With a queue the stages drain at the end as in a run; what counts is what was done until then.
    """
    clock = Clock(pipeline.cores)
    stages: list[_Stage] = []
    for index in reversed(range(len(pipeline.stages))):
        stages.insert(0, _Stage(pipeline, index, clock, stages[0] if stages else None, batches, warmup))
    for stage in stages:
        for worker in stage.workers:
            clock.start(worker.run())
    while any(stage.unfinished for stage in stages) and clock.step():
        pass
    assert not any(stage.unfinished for stage in stages), "the simulated stages wait for each other in a ring"
    return [stage.outcome() for stage in stages]


class _Stage:
    """The replicas of one stage; batch b is that of replica b modulo their number."""

    def __init__(
        self, pipeline: Pipeline, index: int, clock: Clock, following: "_Stage | None", batches: int, warmup: int
    ) -> None:
        cost = pipeline.stages[index]
        self.workers = [_Worker(pipeline, index, replica, clock, following, self) for replica in range(cost.replicas)]
        self.warmup, self.batches = warmup, batches
        self.ends_s: list[float] = []

    @property
    def unfinished(self) -> bool:
        return len(self.ends_s) < self.batches

    def outcome(self) -> StageOutcome:
        counted = self.ends_s[self.warmup - 1 : self.batches]
        seconds = counted[-1] - counted[0]
        stats = [worker.stats() for worker in self.workers]
        reads = max(sum(one.reads for one in stats), 1)
        spent = seconds * len(self.workers)
        return StageOutcome(
            (len(counted) - 1) / seconds,
            sum(worker.wait_input_s for worker in self.workers) / spent,
            sum(worker.wait_room_s for worker in self.workers) / spent,
            sum(one.staleness_sum for one in stats) / reads,
            max(one.staleness_max for one in stats),
            reads / max(sum(one.distinct_reads for one in stats), 1),
            sum(one.dropped for one in stats),
            max(worker.peak_slots for worker in self.workers),
        )


class _Worker:
    """One process: its loop, its buffer, its slots."""

    def __init__(
        self, pipeline: Pipeline, index: int, replica: int, clock: Clock, following: _Stage | None, stage: _Stage
    ) -> None:
        self._cost, self._link = pipeline.stages[index], pipeline.link
        self._is_first, self._following, self._stage, self._clock = index == 0, following, stage, clock
        self._factors = jitter_factors(self._cost.jitter, pipeline.seed, index, replica)
        policy = Policy.from_config(pipeline.buffers, pipeline.seed)
        self._is_queue = policy.consumes
        self._buffer: ReplayBuffer[int] = ReplayBuffer(pipeline.buffers.capacity, policy, self._free_slot)
        self._arrived: deque[int] = deque()
        self._arrival, self._room = Signal(), Signal()
        self._slots = self._free_slots = pipeline.slots
        self._next_batch = replica
        self._line_free_s = 0.0
        self.wait_input_s = self.wait_room_s = 0.0
        self.peak_slots = 0

    def stats(self) -> BufferStats:
        return self._buffer.stats()

    def run(self) -> Process:
        """The loop of workers.stage.StageWorker."""
        while True:
            read = None if self._is_first else (yield from self._read())
            batch = read.item if read else self._next_batch
            self._next_batch += self._cost.replicas
            factor = next(self._factors)
            began_s = self._clock.now_s
            yield Compute(self._cost.forward_s * factor)
            forward_s = self._clock.now_s - began_s
            if self._following:
                yield from self._send(batch)
            began_s = self._clock.now_s
            yield Compute(self._cost.learn_s * factor)
            if self._cost.slow_factor > 1:
                yield Sleep((self._cost.slow_factor - 1) * (forward_s + self._clock.now_s - began_s))
            self._stage.ends_s.append(self._clock.now_s)
            if read:
                read.done()

    def _counts(self) -> bool:
        return self._stage.warmup <= len(self._stage.ends_s) < self._stage.batches

    def _read(self) -> Iterator[Signal]:  # type: ignore[misc]
        started = self._clock.now_s
        while (read := self._try_read()) is None:
            yield self._arrival
        if self._counts():
            self.wait_input_s += self._clock.now_s - started
        return read

    def _try_read(self) -> Read[int] | None:
        while self._arrived and self._buffer.has_room:
            self._buffer.insert(self._arrived.popleft(), 0)
        return self._buffer.try_read()

    def _send(self, batch: int) -> Process:
        receiver = self._following.workers[batch % len(self._following.workers)]  # type: ignore[union-attr]
        started = self._clock.now_s
        while not receiver._free_slots:
            yield receiver._room
        if self._counts():
            self.wait_room_s += self._clock.now_s - started
        receiver._free_slots -= 1
        receiver.peak_slots = max(receiver.peak_slots, receiver._slots - receiver._free_slots)
        self._line_free_s = max(self._line_free_s, self._clock.now_s) + self._link.sent_bytes / self._link.bytes_per_s
        self._clock.start(receiver._deliver(batch, self._line_free_s + self._link.latency_s - self._clock.now_s))

    def _deliver(self, batch: int, after_s: float) -> Process:
        if after_s:
            yield Sleep(after_s)
        if self._is_queue:
            self._arrived.append(batch)
        else:
            self._buffer.insert(batch, 0)
        self._clock.wake(self._arrival)

    def _free_slot(self, batch: int) -> None:
        self._free_slots += 1
        self._clock.wake(self._room)
