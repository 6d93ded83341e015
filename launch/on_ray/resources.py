"""Which resources of a cluster the processes of a run need, and which reserved bundle each one takes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from greedypipe.launch.planning.run_plan import Plan

Bundle = dict[str, float]
"""Resources of one process, by Ray's names."""


def bundles(plan: Plan, num_gpus: float) -> list[Bundle]:
    """One bundle per rank. Stage 0 also gets CPUs for its loader; each rank gets a GPU where the cluster has any and the run
    may use them.

    Args:
        num_gpus: GPUs of the whole cluster.
    """
    config = plan.config
    uses_gpus = config.placement.device == "cuda" or (config.placement.device == "auto" and num_gpus > 0)
    result = []
    for seat in plan.placement.seats():
        cpus = config.ray.cpus + (config.data.loader_workers if seat.stage == 0 else 0)
        result.append({"CPU": cpus} | ({"GPU": 1.0} if uses_gpus else {}))
    return result


def cpus_of_own_cluster(needed: Sequence[Bundle], cores: int) -> int:
    """CPUs that a cluster on this machine alone is given: its cores, or as many as the run reserves.

    To Ray a CPU is a number: processes may share cores, as they do under torchrun.
    """
    return max(cores, math.ceil(sum(bundle["CPU"] for bundle in needed)))


def shortage(needed: Sequence[Bundle], nodes: Sequence[Mapping[str, Any]], strategy: str) -> str:
    """Why a cluster can never reserve these bundles; empty where it can.

    Args:
        needed: One bundle per rank.
        nodes: The cluster's nodes, as `ray.nodes()` returns them.
        strategy: Ray's placement strategy.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    for name in sorted({name for bundle in needed for name in bundle}):
        need, have = sum(bundle.get(name, 0) for bundle in needed), sum(node.get(name, 0) for node in alive)
        if need > have:
            return f"{len(needed)} processes need {need:g} {name}, the cluster has {have:g}"
        largest, room = max(bundle.get(name, 0) for bundle in needed), max(node.get(name, 0) for node in alive)
        if largest > room:
            return f"one process needs {largest:g} {name}, no node has more than {room:g}"
        if strategy == "STRICT_PACK" and need > room:
            return f"ray.strategy=STRICT_PACK needs {need:g} {name} on one node, none has more than {room:g}"
    if strategy == "STRICT_SPREAD" and len(needed) > len(alive):
        return f"ray.strategy=STRICT_SPREAD needs {len(needed)} nodes, the cluster has {len(alive)}"
    return ""


def seating(nodes: Sequence[str], num_first: int) -> list[int]:
    """The reserved bundle of each rank, chosen so that neighbouring stages share a node where they can.

    The first bundles are those of stage 0; the others are alike, and are taken node by node.

    Args:
        nodes: The node of each bundle.
        num_first: How many bundles belong to stage 0.
    """
    first = sorted(range(num_first), key=lambda bundle: nodes[bundle])
    last = nodes[first[-1]]
    return first + sorted(range(num_first, len(nodes)), key=lambda bundle: (nodes[bundle] != last, nodes[bundle], bundle))
