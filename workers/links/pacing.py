"""What both ends of a paced link share: a device puts its half of a transfer on only when the other will put on its own.

Headers and credits go over a socket (workers.links.control), tensors over a wire from lane to lane. A message moves in four
steps: the sender's copy into its slot is done; the receiver has promised a slot (a credit); the header is sent; then both
ends put their half of the transfer on their lanes, within a fraction of a millisecond of each other. So no kernel waits on a
device for the other process's work. It would hold multiprocessors, and every call that synchronises the device (an
allocation, the loading of a module) would wait with it, at the end of the stream for ever.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Protocol

from torch import Tensor

from greedypipe.workers.links.control import ControlSocket
from greedypipe.workers.links.lane import Lane, Mark, wait_for_mark

DEADLINES = 2
"""A transfer's deadline, as a multiple of the link's: one that is late ends the link for good, so the reader's own deadline,
whose message names the awaited peer, must come first."""


class Word(IntEnum):
    """What goes upstream."""

    CREDIT = 0
    """A slot is free, on the device too: a promise to receive into it as soon as a header comes."""
    ARRIVED = 1
    """A message is in the receiver's slot."""
    TAKEN = 2
    """A message has been given to its reader."""


class BrokenWire(ConnectionError):
    """A wire has failed by its own account, whether or not the other end is still there; one line that names it."""


class Wire(Protocol):
    """Moves bytes from lane to lane, in order. The link's thread alone calls it, after `Lane.enter`."""

    meets_on_device: bool
    """Whether a half of a transfer waits on its device for the other one: NCCL's kernels do, copies to the host do not."""

    def send(self, memory: Tensor) -> None:
        """Puts the sender's half of a transfer on the lane. It ends by itself once the other half is there, or by `abort`.

        Raises:
            ConnectionError: The wire is broken.
        """

    def check(self) -> None:
        """Looks whether what is on the lane has failed, of which its device says nothing. Does not block, and costs less
        than a call of the system.

        Raises:
            BrokenWire: It has.
        """

    def receive(self, memory: Tensor) -> None:
        """Puts the receiver's half on, of as many bytes; likewise."""

    def abort(self) -> None:
        """Ends what is on the lane and lets go of everything; idempotent. Does not wait for the peer."""


class Track(NamedTuple):
    """One end of a paced link: where its headers and credits, its bytes and its device's work go."""

    control: ControlSocket
    wire: Wire
    lane: Lane

    def reaches(self, mark: Mark, timeout_s: float, is_peer_there: Callable[[], bool] | None = None) -> bool:
        """Blocks until a mark is reached; False at the deadline. Raises BrokenWire once the wire has failed, PeerGone once
        the peer is gone."""
        is_there = is_peer_there or self.control.is_peer_there

        def goes_on() -> bool:
            self.wire.check()
            return is_there()

        return wait_for_mark(self.lane, mark, timeout_s, goes_on)
