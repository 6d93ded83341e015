"""Questions that no machine here can answer, put to the simulator."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.simulation.costs import LinkCost, Pipeline, StageCost, jitter_factors
from benchmarks.simulation.decoupled import simulate
from benchmarks.simulation.schedules import NO_LINK, SCHEDULES, Costs, run_lists
from greedypipe.buffers.replay import BuffersConfig

FORWARD_S, BACKWARD_S = 1.0, 2.0
"""Of one stage without its head, in units of a forward pass."""
HEAD_OVERHEAD = 0.1
"""Alpha of the decoupled stages; a stage's head is part of what it learns."""
JITTER = 0.1
MOST_MICRO_BATCHES = 128
FIFO, REPLAY = BuffersConfig(), BuffersConfig(policy="replay")
WHOLE_S = FORWARD_S + BACKWARD_S


def stage(slowed: float = 1.0, jitter: float = JITTER, replicas: int = 1) -> StageCost:
    """A decoupled stage with its head."""
    learn_s = BACKWARD_S + HEAD_OVERHEAD * WHOLE_S
    return StageCost(slowed * FORWARD_S, slowed * learn_s, jitter=jitter, replicas=replicas)


def flushed_s(name: str, slowed: Sequence[float], micro_batches: int, link: LinkCost = NO_LINK, batches: int = 3) -> float:
    """Mean seconds per batch of a schedule whose processes are slowed by these factors and jitter from batch to batch."""
    lists = SCHEDULES[name](len(slowed), micro_batches)
    factors = [jitter_factors(JITTER, 0, rank) for rank in range(len(slowed))]
    seconds = []
    for _ in range(batches):
        costs = [
            Costs(FORWARD_S * slow * factor, BACKWARD_S / 2 * slow * factor, BACKWARD_S / 2 * slow * factor)
            for slow, factor in zip(slowed, map(next, factors), strict=True)
        ]
        seconds.append(run_lists(lists, costs, link).seconds)
    return statistics.mean(seconds)


def scale(stages: Sequence[int]) -> dict[str, Any]:
    """Speed-up over back-propagation in one process, which has no jitter to wait for and no heads."""
    curves: dict[str, list[float]] = {name: [] for name in ("FIFO", "replay", *SCHEDULES)}
    for count in stages:
        alone_s = count * WHOLE_S
        for name, buffers in (("FIFO", FIFO), ("replay", REPLAY)):
            outcomes = simulate(Pipeline([stage()] * count, buffers=buffers), 120, 60)
            curves[name].append(alone_s * outcomes[-1].batches_per_s)
        for name in SCHEDULES:
            micro_batches = min(4 * count, MOST_MICRO_BATCHES)
            curves[name].append(alone_s / flushed_s(name, [1.0] * count, micro_batches, batches=3 if count <= 64 else 1))
    return {"stages": list(stages), "speed_up": curves, "micro_batches": [min(4 * p, MOST_MICRO_BATCHES) for p in stages]}


def slow_links(shares: Sequence[float]) -> dict[str, Any]:
    """Throughput over that with fast links; a share is the bandwidth over the one at which an fp32 activation takes just
    as long as a decoupled stage."""
    fast = simulate(Pipeline([stage()] * 8), 120, 60)[-1].batches_per_s
    base_s, curves = flushed_s("1F1B", [1.0] * 8, 32), {}
    for name, size in (("FIFO, same", 1.0), ("FIFO, bf16", 0.5), ("FIFO, int8", 0.25)):
        curves[name] = [
            simulate(Pipeline([stage()] * 8, link=LinkCost(size * stage().own_s, share)), 120, 60)[-1].batches_per_s / fast
            for share in shares
        ]
    curves["1F1B, m = 32"] = [base_s / flushed_s("1F1B", [1.0] * 8, 32, LinkCost(stage().own_s, share)) for share in shares]
    return {"bandwidth_share": list(shares), "throughput_share": curves}


def straggler(factors: Sequence[float]) -> dict[str, Any]:
    """One of eight stages slowed: throughput of the others over that without a slow one."""
    names = ("FIFO", "replay: others", "replay: slowed stage", "1F1B, m = 32")
    curves: dict[str, list[float]] = {name: [] for name in names}
    fast = {
        name: simulate(Pipeline([stage()] * 8, buffers=buffers), 160, 60)[-1].batches_per_s
        for name, buffers in (("FIFO", FIFO), ("replay", REPLAY))
    }
    base_s = flushed_s("1F1B", [1.0] * 8, 32)
    for factor in factors:
        slowed = [factor if index == 3 else 1.0 for index in range(8)]
        stages = [stage(slow) for slow in slowed]
        curves["FIFO"].append(simulate(Pipeline(stages), 160, 60)[-1].batches_per_s / fast["FIFO"])
        outcomes = simulate(Pipeline(stages, buffers=REPLAY), 160, 60)
        others = min(one.batches_per_s for index, one in enumerate(outcomes) if index != 3)
        curves["replay: others"].append(others / fast["replay"])
        curves["replay: slowed stage"].append(outcomes[3].batches_per_s / fast["replay"])
        curves["1F1B, m = 32"].append(base_s / flushed_s("1F1B", slowed, 32))
    return {"slowed": list(factors), "throughput_share": curves}


def replicated(counts: Sequence[int]) -> dict[str, Any]:
    """One of four stages takes four times as long: throughput over that of an even pipeline, with replicas of it."""
    even = simulate(Pipeline([stage()] * 4), 160, 60)[-1].batches_per_s
    rates = [
        simulate(Pipeline([stage(), stage(4, replicas=count), stage(), stage()]), 160, 60)[-1].batches_per_s / even
        for count in counts
    ]
    return {"replicas": list(counts), "throughput_share": {"FIFO": rates}}


def jitter_and_capacity(jitters: Sequence[float], capacities: Sequence[int]) -> dict[str, Any]:
    """Throughput of eight stages over what one alone has."""
    curves = {
        f"jitter {jitter:.0%}": [
            simulate(Pipeline([stage(jitter=jitter)] * 8, buffers=BuffersConfig(capacity=size)), 400, 100)[-1].batches_per_s
            * stage().own_s
            for size in capacities
        ]
        for jitter in jitters
    }
    return {"capacity": list(capacities), "throughput_share": curves}


def all_studies(smoke: bool) -> dict[str, Any]:
    """Every study at full or at its smallest size."""
    if smoke:
        return {
            "scale": scale([2, 4]),
            "links": slow_links([0.5, 2]),
            "straggler": straggler([1, 2]),
            "replicas": replicated([1, 2]),
            "jitter": jitter_and_capacity([0.3], [1, 4]),
        }
    return {
        "scale": scale([2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]),
        "links": slow_links([0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16]),
        "straggler": straggler([1, 1.25, 1.5, 2, 2.5, 3, 3.5, 4]),
        "replicas": replicated([1, 2, 3, 4, 5]),
        "jitter": jitter_and_capacity([0.1, 0.3, 0.6, 1.0], [1, 2, 4, 8, 16, 32, 64]),
    }
