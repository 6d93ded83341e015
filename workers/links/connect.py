"""From the configuration to the two ends of a link."""

import torch
from torch.distributed import PrefixStore, Store

from greedypipe.workers.links.gloo import RECEIVER, SENDER, ProcessGroupReceiver, ProcessGroupSender, Wire, connect_gloo
from greedypipe.workers.links.interface import LinkConfig, Receiver, Sender
from greedypipe.workers.links.messages import MessageLayout
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.shared_memory import attach_shared_memory, serve_shared_memory
from greedypipe.workers.this_host import memory_of_host

DEADLINES = 2
"""A wire's own deadline, as a multiple of the link's. A wire that times out is closed for good, so the reader's deadline,
whose message names the awaited peer, must come first."""


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
        if self._choose(RECEIVER) == "shm":
            return serve_shared_memory(
                self._store, self._link, self._layout, slots=slots + self._config.slots, patience=self._patience
            )
        wire = self._connect_gloo(RECEIVER)
        return ProcessGroupReceiver(wire, self._layout, slots=slots, timeout_s=DEADLINES * self._timeout_s)

    def send(self) -> Sender:
        """Builds the upstream end; blocks and raises as `receive` does."""
        if self._choose(SENDER) == "shm":
            return attach_shared_memory(self._store, self._link, self._layout, patience=self._patience)
        wire = self._connect_gloo(SENDER)
        return ProcessGroupSender(wire, self._layout, slots=self._config.slots, timeout_s=self._timeout_s, peer=self._peer)

    def _connect_gloo(self, end: int) -> Wire:
        deadline_s = DEADLINES * self._timeout_s
        return connect_gloo(self._store, self._link, end, self._layout, patience=self._patience, deadline_s=deadline_s)

    def _choose(self, end: int) -> str:
        """The transport that both ends choose, from the host and device of each."""
        if self._config.transport == "gloo":
            return "gloo"
        here = f"{memory_of_host()} {self._device.type}"
        store = PrefixStore(self._link, self._store)
        store.set(f"place{end}", here)
        there = self._patience.read(store, f"place{1 - end}").decode()
        if here == there and self._device.type == "cpu":
            return "shm"
        if self._config.transport == "shm":
            raise ValueError(f"link.transport: got shm, but {self._peer} shares no host memory with this stage; use gloo")
        return "gloo"
