"""Builds the links of one process: to every replica of the stages before and after it that shares rows with it."""

import torch
from torch.distributed import Store

from launch.placement import Route
from launch.preflight import Plan
from workers.links.connect import LinkEnd
from workers.links.interface import Receiver, Sender
from workers.links.join import join
from workers.links.split import Branch, split
from workers.stage import DeadEnd
from workers.status import Seat, StageStatus


class StageLinks:
    """What one process needs to meet its neighbours.

    Both ends go through their routes in the order of stages, senders and receivers, upstream first, so that no two wait
    crosswise. Every wait ends after `faults.timeout_s`.
    """

    def __init__(self, plan: Plan, store: Store, status: StageStatus, device: torch.device) -> None:
        self._plan = plan
        self._store = store
        self._status = status
        self._seat = status.seat
        self._device = device

    def receiver(self, slots: int) -> Receiver:
        """The receiver of whole messages, or of this replica's part of them; blocks until all senders have come."""
        routes = self._plan.placement.routes_after(self._seat.stage - 1)
        return join([self._end(route, route.sender).receive(slots) for route in routes if route.receiver == self._seat])

    def sender(self) -> Sender:
        """The sender to the next stage; blocks until all of its replicas have come."""
        if self._seat.stage == self._plan.placement.num_stages - 1:
            return DeadEnd()
        routes = self._plan.placement.routes_after(self._seat.stage)
        return split([
            Branch(self._end(route, route.receiver).send(), route.begin, route.end)
            for route in routes if route.sender == self._seat
        ])  # fmt: skip

    def _end(self, route: Route, peer: Seat) -> LinkEnd:
        self._status.now(f"waiting for {peer.name} to connect")
        config = self._plan.config
        return LinkEnd(
            config.link, self._store, f"link{route.sender.label}-{route.receiver.label}",
            self._plan.layout_after(route.sender.stage, route.share), peer=peer.name, device=self._device,
            timeout_s=config.faults.timeout_s,
        )  # fmt: skip
