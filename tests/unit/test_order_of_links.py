"""No two processes of a run ever wait for each other at different links while they connect."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from greedypipe.launch.process.connect_edges import StageLinks
from greedypipe.workers.placement import Placement, Route, Seat
from greedypipe.workers.telemetry.status import StageStatus


def order_of(placement: Placement, seat: Seat, have_rows: bool) -> list[Route]:
    """The links of a process in the order in which it builds them, as `Stage` calls for them."""
    built: list[Route] = []

    def note(route: Route, make: Any) -> Any:
        built.append(route)
        return SimpleNamespace(lends=False, slot_bytes=0, meets_on_device=False)

    debug = SimpleNamespace(slow_stage=-1, slow_link_s=0)
    plan: Any = SimpleNamespace(
        placement=placement,
        config=SimpleNamespace(link=None, debug=debug),
        layout_after=lambda stage, share: None,
        layout_before=lambda stage, share: 0,
        routes_before=lambda stage: placement.routes_before(stage, have_rows=have_rows) if stage else [],
    )
    attempt: Any = SimpleNamespace(meetings=SimpleNamespace(sender=note, receiver=note))
    links = StageLinks(plan, attempt, StageStatus(seat, blocks=[0], pid=0, host=""), torch.device("cpu"))
    if seat.stage:
        links.receiver(2)
    links.back_sender()
    links.sender()
    links.back_receiver(2)
    return built


@pytest.mark.parametrize("have_rows", [True, False])
@pytest.mark.parametrize("replicas", [(1, 1, 1, 1), (2, 3, 1), (1, 4, 2), (3, 2, 3, 1)])
def test_all_processes_build_their_links_in_one_order_of_all_links(replicas: tuple[int, ...], have_rows: bool) -> None:
    """A process waits at its first unbuilt link. Of all unbuilt links the first in this order is the first of both its ends,
    so somebody always gets on."""
    placement = Placement(replicas, len(replicas))
    left = {seat.rank: order_of(placement, seat, have_rows) for seat in placement.seats()}
    assert sum(map(len, left.values())) % 2 == 0
    while any(left.values()):
        first = [links[0] for links in left.values() if links]
        met = [route for route in first if first.count(route) == 2]
        assert met, "all wait for each other"
        for links in left.values():
            if links and links[0] == met[0]:
                links.pop(0)
