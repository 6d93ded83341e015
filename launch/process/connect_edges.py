"""Builds the links of one process: to every replica of the stages before and after it that shares rows with it."""

from typing import TypeVar

import torch
from torch.distributed import Store

from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.recovery.attempt import Attempt
from greedypipe.workers.around.scripted_faults import slowed_link
from greedypipe.workers.links.connect import LinkEnd
from greedypipe.workers.links.gather import join
from greedypipe.workers.links.interface import DeadEnd, Receiver, Sender
from greedypipe.workers.links.messages import MessageLayout
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.scatter import Branch, split
from greedypipe.workers.placement import Route, Seat
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.status import StageStatus

LinkEnds = TypeVar("LinkEnds", Sender, Receiver)


class StageLinks:
    """Connects one process to its neighbours.

    Both ends go through their routes in the order of stages, senders and receivers, upstream first, so that no two
    processes wait for each other at different routes. Every wait ends after `faults.timeout_s`.
    """

    def __init__(self, plan: Plan, attempt: Attempt, status: StageStatus, device: torch.device) -> None:
        self._plan = plan
        self._attempt = attempt
        self._met_on_device: list[Seat] = []
        self._status = status
        self._seat = status.seat
        self._device = device
        self._link = plan.config.link
        self._own = self._seat.part

    def receiver(self, slots: int) -> Receiver:
        """The receiver of whole messages, or of this replica's part of them; blocks until all senders have connected."""
        routes = self._plan.placement.routes_after(self._seat.stage - 1)
        parts = [self._receiver(route, slots, self._forward(route)) for route in routes if route.receiver == self._seat]
        return join(parts, self._own)

    def sender(self) -> Sender:
        """The sender to the next stage; blocks until all of its replicas have connected."""
        if self._seat.stage == self._plan.placement.num_stages - 1:
            return DeadEnd()
        routes = self._plan.placement.routes_after(self._seat.stage)
        return split(
            [
                Branch(
                    slowed_link(self._sender(route, self._forward(route)), self._seat.stage, self._plan.config.debug),
                    route.part,
                )
                for route in routes
                if route.sender == self._seat
            ],
            self._own,
        )

    def _forward(self, route: Route) -> MessageLayout:
        return self._plan.layout_after(route.sender.stage, route.part.share)

    def back_sender(self) -> Sender | None:
        """The sender of feedback to the stage before; None where this process sends none there. Blocks until all of the
        processes that it goes to have come."""
        routes = [route for route in self._plan.routes_before(self._seat.stage) if route.sender == self._seat]
        if not routes:
            return None
        return split([Branch(self._sender(route, self._backward(route)), route.part) for route in routes], self._own)

    def back_receiver(self, slots: int) -> Receiver | None:
        """The receiver of the next stage's feedback; None where there is none. Blocks until that stage has come."""
        if self._seat.stage + 1 == self._plan.placement.num_stages:
            return None
        routes = [route for route in self._plan.routes_before(self._seat.stage + 1) if route.receiver == self._seat]
        if not routes:
            return None
        return join([self._receiver(route, slots, self._backward(route)) for route in routes], self._own)

    def wait_for_neighbours(self) -> None:
        """To be called when all links of this process are connected, before the first message of any. Blocks until the same
        is true of every process that it meets on a device; returns at once where it meets none.

        The set-up of a link over NCCL waits for its device to become idle, and a transfer that has begun waits on its device
        for the other one: beside each other they might wait in a circle.

        Raises:
            TimeoutError: Another process has not connected its links in time; names it.
            GivenUp: The attempt is over.
        """
        if self._met_on_device:
            self._attempt.store.set(_connected(self._seat), "")
        for peer in dict.fromkeys(self._met_on_device):
            self._wait_for(peer)

    def _wait_for(self, peer: Seat) -> None:
        self._status.now(Activity.CONNECT, peer.name)
        attempt, key = self._attempt, _connected(peer)
        timeout_s = self._plan.config.faults.timeout_s
        attempt.wait_for(lambda: attempt.store.check([key]) or None, timeout_s, lambda: f"{peer.name} to connect its links")

    def _backward(self, route: Route) -> MessageLayout:
        layout = self._plan.layout_before(route.sender.stage, route.part.share)
        assert layout is not None, "a route of feedback without any"
        return layout

    def _receiver(self, route: Route, slots: int, layout: MessageLayout) -> Receiver:
        self._status.now(Activity.CONNECT, route.sender.name)
        receiver = self._attempt.meetings.receiver(
            route, lambda store, patience: self._end(route, store, patience, layout).receive(slots)
        )
        return self._noted(receiver, route.sender)

    def _sender(self, route: Route, layout: MessageLayout) -> Sender:
        self._status.now(Activity.CONNECT, route.receiver.name)
        sender = self._attempt.meetings.sender(
            route, lambda store, patience: self._end(route, store, patience, layout).send()
        )
        return self._noted(sender, route.receiver)

    def _noted(self, end: LinkEnds, peer: Seat) -> LinkEnds:
        if end.meets_on_device:
            self._met_on_device.append(peer)
        return end

    def _end(self, route: Route, store: Store, patience: Patience, layout: MessageLayout) -> LinkEnd:
        name = f"link{route.sender.label}-{route.receiver.label}"
        return LinkEnd(self._link, store, name, layout, device=self._device, patience=patience)


def _connected(seat: Seat) -> str:
    return f"connected/{seat.label}"
