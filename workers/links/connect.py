"""From the configuration to the two ends of a link."""

import sys

import torch
from torch.distributed import PrefixStore, Store

from greedypipe.workers.links.device_link import DeviceLink
from greedypipe.workers.links.gloo import RECEIVER, SENDER, ProcessGroupReceiver, ProcessGroupSender, Wire, connect_gloo
from greedypipe.workers.links.interface import LinkConfig, Receiver, Sender
from greedypipe.workers.links.messages import MessageLayout
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.place import CUDA, Place, choose
from greedypipe.workers.links.shared_memory import attach_shared_memory, serve_shared_memory
from greedypipe.workers.links.trial import Unfit

DEADLINES = 2
"""A wire's own deadline, as a multiple of the link's. A wire that times out is closed for good, so the reader's deadline,
whose message names the awaited peer, must come first."""


INSTEAD = {
    "nccl": "gloo instead of nccl, which does not work here (NCCL_DEBUG=INFO says more, NCCL_P2P_DISABLE=1 may help)",
    "ipc": "gloo instead of ipc, which does not work here",
    "gloo": "every message waits for the GPU, as gloo beside its work does not work here",
}
"""What happens where a transport does not work."""


class LinkEnd:
    """Everything that one end of a link needs to find the other; `send` or `receive` builds it.

    Args:
        link: Name of the link in the store, the same at both ends.
        patience: Deadline for the peer, also of every later wait.
    """

    def __init__(
        self, config: LinkConfig, store: Store, link: str, layout: MessageLayout, *, device: torch.device, patience: Patience
    ) -> None:
        self._config = config
        self._store = store
        self._link = link
        self._layout = layout
        self._device = device
        self._patience = patience
        self._peer = patience.peer
        self._timeout_s = patience.timeout_s

    def receive(self, slots: int) -> Receiver:
        """Builds the downstream end, with `slots` slots; blocks until the peer has built the other.

        Raises:
            ConnectionError: The peer did not connect within the deadline; GivenUp if waiting became pointless.
            ValueError: The peer's messages have another layout, or the requested transport cannot reach it.
        """
        transport = self._choose(RECEIVER)
        if transport == "shm":
            return serve_shared_memory(
                self._store, self._link, self._layout, slots=slots + self._config.slots, patience=self._patience
            )
        for tried in self._tried_first(transport):
            try:
                return self._receive_on_device(tried, slots)
            except Unfit as error:
                self._insist(tried, error)
        timeout_s = DEADLINES * self._timeout_s
        wire = self._connect_gloo(RECEIVER)
        return ProcessGroupReceiver(wire, self._layout, slots=slots, timeout_s=timeout_s, pinned=self._is_on_cuda)

    def send(self) -> Sender:
        """Builds the upstream end; blocks and raises as `receive` does."""
        transport = self._choose(SENDER)
        if transport == "shm":
            return attach_shared_memory(self._store, self._link, self._layout, patience=self._patience)
        for tried in self._tried_first(transport):
            try:
                return self._send_on_device(tried)
            except Unfit as error:
                self._insist(tried, error)
                print(f"{self._link}: {INSTEAD[tried]}: {error}", file=sys.stderr)
        return ProcessGroupSender(
            self._connect_gloo(SENDER),
            self._layout,
            slots=self._config.slots,
            patience=self._patience,
            pinned=self._is_on_cuda,
        )

    @property
    def _is_on_cuda(self) -> bool:
        return self._device.type == CUDA

    def _connect_gloo(self, end: int) -> Wire:
        deadline_s = DEADLINES * self._timeout_s
        return connect_gloo(self._store, self._link, end, self._layout, patience=self._patience, deadline_s=deadline_s)

    def _tried_first(self, transport: str) -> tuple[str, ...]:
        """What may turn out not to work, before gloo as it always works."""
        beside_the_stage = ("gloo",) if self._are_on_cuda else ()
        return beside_the_stage if transport == "gloo" else (transport, *beside_the_stage)

    def _receive_on_device(self, transport: str, slots: int) -> Receiver:
        link = self._device_link(transport)
        if transport == "ipc":
            return link.ipc_receiver(slots + self._config.slots)
        return link.paced_receiver(transport, slots)

    def _send_on_device(self, transport: str) -> Sender:
        link = self._device_link(transport)
        return link.ipc_sender() if transport == "ipc" else link.paced_sender(transport, self._config.slots)

    def _device_link(self, transport: str) -> DeviceLink:
        store = PrefixStore(f"{self._link}/{transport} on devices", self._store)
        return DeviceLink(store, self._link, self._layout, self._device, self._is_on_one_host, self._patience)

    def _insist(self, transport: str, error: Unfit) -> None:
        """Raises ValueError where the transport was asked for by name, and there is no other way to have it."""
        if transport == self._config.transport != "gloo":
            raise ValueError(
                f"link.transport: got {transport}, which does not work between this stage and {self._peer}: {error}; use "
                "gloo or auto"
            ) from error

    def _choose(self, end: int) -> str:
        """The transport that both ends choose, from the place of each."""
        here = Place.of(self._device)
        store = PrefixStore(self._link, self._store)
        store.set(f"place{end}", here.text())
        there = Place.read(self._patience.read(store, f"place{1 - end}").decode())
        self._is_on_one_host = here.memory == there.memory
        self._are_on_cuda = here.device == there.device == CUDA
        return choose(self._config.transport, here, there, self._peer)
