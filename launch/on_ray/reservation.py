"""Resources of a cluster, reserved for all processes of a run at once."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from greedypipe.launch.on_ray.resources import Bundle

POLL_S = 0.5


@contextlib.contextmanager
def reserved(bundles: list[Bundle], strategy: str, timeout_s: float) -> Iterator[PlacementGroup]:
    """Reserves resources of a cluster for the body. Blocks until they are free.

    Args:
        bundles: What each process needs.
        strategy: Ray's placement strategy.

    Raises:
        TimeoutError: The resources were not released in time.
    """
    group = placement_group(bundles, strategy=strategy)
    try:
        _wait_for(group, lambda left_s: ray.get(group.ready(), timeout=left_s), timeout_s)
        yield group
    finally:
        remove_placement_group(group)


def wait_until_all_answer(group: PlacementGroup, timeout_s: float, bundles: Sequence[int] | None = None) -> None:
    """Blocks until a process can be started in every bundle, or in the given ones.

    Ray takes some seconds to notice that a node is gone and to move its bundles to another one.

    Raises:
        TimeoutError: There was no room for a bundle in time.
    """

    def probe(left_s: float) -> None:
        ray.get(group.ready(), timeout=left_s)
        answer = ray.remote(num_cpus=0, max_retries=0)(_answer)
        places = [place(group, bundle) for bundle in bundles or range(len(group.bundle_specs))]
        ray.get([answer.options(scheduling_strategy=each).remote() for each in places], timeout=left_s)

    _wait_for(group, probe, timeout_s)


def place(group: PlacementGroup, bundle: int) -> PlacementGroupSchedulingStrategy:
    """Has an actor or a task start in one bundle of the group."""
    return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)


def _answer() -> bool:
    return True


def _wait_for(group: PlacementGroup, look: Callable[[float], object], timeout_s: float) -> None:
    """Tries `look`, which is given the seconds that are left, until Ray raises no error."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            look(max(0.0, deadline - time.monotonic()))
            return
        except RayError:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
    free = {name: f"{count:g}" for name, count in ray.available_resources().items() if name in ("CPU", "GPU")}
    needed = f"{len(group.bundle_specs)} bundles; free at the moment: {free or 'nothing'}"
    raise TimeoutError(f"waited {timeout_s:g} s (ray.start_timeout_s) for {needed}")
