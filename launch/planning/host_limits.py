"""What a host must allow the processes of a run that it is to have, checked before anything starts."""

import resource
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.workers.data.prefetch import FILES_PER_PROCESS
from greedypipe.workers.inbox import SLOTS_BEYOND_BUFFER
from greedypipe.workers.links.messages import MessageLayout
from greedypipe.workers.links.shared_memory import slots_bytes
from greedypipe.workers.memory import available_bytes
from greedypipe.workers.placement import Route, Seat

FILES, FILES_PER_LINK = 40, 8
"""Descriptors that a process needs at most, without links and loader processes; and for each link."""
READINGS = 2
"""Stage 0 has loader processes for training, and as many for evaluation."""
MEGABYTE = 1 << 20


def check_host(plan: Plan, seats: Iterable[Seat]) -> None:
    """Checks this host's limits for these processes of a run, and raises this process's own where it may.

    Raises:
        ConfigError: A limit is too low; a line for each.
    """
    seats = list(seats)
    if problems := [*_memory_problems(plan, seats), *_file_problems(plan, seats)]:
        raise ConfigError(problems)
    allow_open_files(plan)


def allow_open_files(plan: Plan) -> None:
    """Raises this process's soft limit of open files to what any process of the run needs, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(files_of(plan, seat) for seat in plan.placement.seats())
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def files_of(plan: Plan, seat: Seat) -> int:
    """How many files a process has open at most."""
    links = [link for link in _links(plan) if seat in (link.route.sender, link.route.receiver)]
    loaders = 0 if seat.stage else READINGS * plan.config.data.loader_workers
    return FILES + FILES_PER_LINK * len(links) + FILES_PER_PROCESS * loaders


class _Link(NamedTuple):
    route: Route
    layout: MessageLayout
    slots: int
    """That its receiver makes, at most."""


def _links(plan: Plan) -> Iterator[_Link]:
    """All links of a run, there and back."""
    more = SLOTS_BEYOND_BUFFER + plan.config.link.slots
    delays = plan.config.feedback.delays(plan.blueprint.num_blocks)
    for stage in range(plan.placement.num_stages - 1):
        for route in plan.placement.routes_after(stage):
            yield _Link(route, plan.layout_after(stage, route.part.share), plan.config.buffers.capacity + more)
        for route in plan.routes_before(stage + 1):
            layout = plan.layout_before(stage + 1, route.part.share)
            assert layout is not None, "a route of feedback without any"
            yield _Link(route, layout, delays[plan.placement.blocks_of(stage)[-1]] + 1 + more)


def _file_problems(plan: Plan, seats: Iterable[Seat]) -> Iterator[str]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(files_of(plan, seat) for seat in seats)
    if hard != resource.RLIM_INFINITY and hard < needed:
        yield (
            f"open files: got a limit of {hard} (ulimit -n), allowed: {needed} or more with "
            f"data.loader_workers={plan.config.data.loader_workers}"
        )


def _memory_problems(plan: Plan, seats: list[Seat]) -> Iterator[str]:
    """Whether the slots of the links into these processes fit into the memory that is left."""
    needed = sum(slots_bytes(link.layout, link.slots) for link in _links(plan) if link.route.receiver in seats)
    available = available_bytes()
    if available is not None and needed > available:
        yield (
            f"memory: the links need {needed // MEGABYTE:,} MB for their messages, got {available // MEGABYTE:,} MB "
            "available on this host; use smaller buffers.capacity, link.slots, feedback.delay or data.batch_size"
        )
