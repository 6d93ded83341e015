"""Builds the ends of links between stages on GPUs. Not yet run on a GPU; on the CPU with stand-ins."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch.distributed import PrefixStore, Store

from greedypipe.workers.links.cuda_lane import lane_of, new_memory
from greedypipe.workers.links.gloo import RECEIVER, SENDER, connect_gloo
from greedypipe.workers.links.gloo_wire import GlooWire, new_buffer
from greedypipe.workers.links.interface import Receiver, Sender
from greedypipe.workers.links.ipc import CudaPassing, MappedEnd, open_slots, read_pattern, share_slots, write_pattern
from greedypipe.workers.links.lane import Lane
from greedypipe.workers.links.mapped import MappedReceiver, MappedSender
from greedypipe.workers.links.meeting import meet_as_receiver, meet_as_sender
from greedypipe.workers.links.messages import MessageLayout
from greedypipe.workers.links.nccl import NcclWire, make_nccl_group
from greedypipe.workers.links.paced_receiver import PacedReceiver
from greedypipe.workers.links.paced_sender import PacedSender
from greedypipe.workers.links.pacing import DEADLINES, Track, Wire
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.self_test import check_patterns, offer_patterns
from greedypipe.workers.links.slots import BareSlot, payload_bytes
from greedypipe.workers.links.trial import try_out


@dataclass(frozen=True)
class DeviceLink:
    """One end of a link, and what it takes to build it over one transport.

    Every method blocks until the other end has been built and both have tested it.

    Attributes:
        store: For this link and transport alone.
        device: Of this end's stage.

    Raises:
        Unfit: It does not work between these two ends; both raise it.
        ConnectionError: The other end did not come in time, or is gone; GivenUp if waiting became pointless.
        ValueError: Its messages have another layout.
    """

    store: Store
    name: str
    layout: MessageLayout
    device: torch.device
    is_on_one_host: bool
    patience: Patience

    def paced_sender(self, transport: str, slots: int) -> Sender:
        """The upstream end of a link over "nccl" or "gloo", with `slots` slots."""
        track, made = try_out(self.store, SENDER, self.patience, partial(self._paced, transport, SENDER, slots))
        return PacedSender(transport, track, made, self.layout, timeout_s=self.patience.timeout_s)

    def paced_receiver(self, transport: str, slots: int) -> Receiver:
        """The downstream end, likewise."""
        track, made = try_out(self.store, RECEIVER, self.patience, partial(self._paced, transport, RECEIVER, slots))
        return PacedReceiver(track, made, timeout_s=self.patience.timeout_s)

    def ipc_sender(self) -> Sender:
        """The upstream end of a link whose slots are the receiver's."""
        lane = lane_of(self.device)
        control, slots = try_out(self.store, SENDER, self.patience, partial(self._mapped_sender, lane))
        return MappedSender("ipc", control, lane, slots, self.layout, timeout_s=self.patience.timeout_s)

    def ipc_receiver(self, slots: int) -> Receiver:
        """The downstream end, with `slots` slots."""
        lane = lane_of(self.device)
        control, made = try_out(self.store, RECEIVER, self.patience, partial(self._mapped_receiver, lane, slots))
        return MappedReceiver(control, lane, made, timeout_s=self.patience.timeout_s)

    def _paced(
        self, transport: str, end: int, slots: int, patience: Patience, opened: ExitStack
    ) -> tuple[Track, list[BareSlot]]:
        meet, test = ((meet_as_sender, offer_patterns), (meet_as_receiver, check_patterns))[end]
        control = meet(self.store, self.layout, patience=patience, is_on_one_host=self.is_on_one_host)
        opened.callback(control.close)
        lane, size = lane_of(self.device), payload_bytes(self.layout)
        made = [BareSlot(self.layout, new_memory(size, self.device)) for _ in range(slots)]
        wire = (self._nccl_wire if transport == "nccl" else self._gloo_wire)(end, lane, patience)
        opened.callback(_abort, wire)
        track = Track(control, wire, lane)
        _in_a_thread(lane, patience, lambda: test(track, made[0].memory, patience.timeout_s / 2))
        return track, made

    def _nccl_wire(self, end: int, lane: Lane, patience: Patience) -> Wire:
        group = make_nccl_group(PrefixStore("group", self.store), end, self.device, self.name, patience)
        return NcclWire(group, end, patience.peer)

    def _gloo_wire(self, end: int, lane: Lane, patience: Patience) -> Wire:
        deadline_s = DEADLINES * patience.timeout_s
        wire = connect_gloo(self.store, "gloo", end, self.layout, patience=patience, deadline_s=deadline_s)
        return GlooWire(wire, lane, new_buffer(payload_bytes(self.layout), self.device), deadline_s)

    def _mapped_receiver(self, lane: Lane, slots: int, patience: Patience, opened: ExitStack) -> MappedEnd:
        control = meet_as_receiver(self.store, self.layout, patience=patience, is_on_one_host=True)
        opened.callback(control.close)
        made = share_slots(self.store, self.layout, slots, self.device, CudaPassing(self.device), patience)
        end = MappedEnd(control, made)
        _in_a_thread(lane, patience, lambda: read_pattern(end, lane, patience.timeout_s / 2))
        return end

    def _mapped_sender(self, lane: Lane, patience: Patience, opened: ExitStack) -> MappedEnd:
        control = meet_as_sender(self.store, self.layout, patience=patience, is_on_one_host=True)
        opened.callback(control.close)
        end = MappedEnd(control, open_slots(self.store, self.layout, CudaPassing(self.device), patience))
        _in_a_thread(lane, patience, lambda: write_pattern(end, lane, patience.timeout_s / 2))
        return end


def _in_a_thread(lane: Lane, patience: Patience, test: Callable[[], None]) -> None:
    """Runs a test on the lane, which must not become the current stream of this thread; blocks, and raises what it does."""

    def run() -> None:
        lane.enter()
        test()

    patience.call(run)


def _abort(wire: Wire) -> None:
    # NCCL may be stuck in what has failed: it is given up, not waited for.
    threading.Thread(target=wire.abort, name="abort a link", daemon=True).start()
