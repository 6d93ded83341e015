"""Whether a wire between two devices moves what it is given: asked once, before the first message.

It is the warm-up as well: the first transfer loads kernels and makes connections, and both synchronise the device. And it
finds machines on which one GPU silently reads garbage of another.
"""

import time

import torch
from torch import Tensor

from greedypipe.workers.links.control import ControlSocket
from greedypipe.workers.links.pacing import Track
from greedypipe.workers.links.trial import Unfit

FEW_BYTES = 64
READY, RIGHT, WRONG = 11, 12, 13
"""Words of the self-test on the control socket, unlike those of any link."""
PRIME = 251


def pattern(size: int, device: torch.device) -> Tensor:
    """Bytes of which no two neighbours are equal, and which repeat themselves at no power of two; uint8 [size]."""
    once = torch.arange(PRIME, dtype=torch.int64, device=device).mul_(7).remainder_(PRIME).to(torch.uint8)
    return once.repeat(-(-size // PRIME))[:size]


def offer_patterns(track: Track, memory: Tensor, timeout_s: float) -> None:
    """The sender's part: sends a few bytes and then all of a slot. Blocks; in a thread that has entered the lane.

    Args:
        memory: uint8, a slot of this end, as long as the receiver's.

    Raises:
        Unfit: Something else arrived.
        BrokenWire: What is on the lane has failed.
        ConnectionError: The receiver is gone.
        TimeoutError: It says nothing, or the device does not end.
    """
    sent = track.lane.new_mark()
    for part in _parts(memory):
        expect(track.control, READY, timeout_s)
        part.copy_(pattern(len(part), part.device))
        track.wire.send(part)
        track.lane.mark_lane(sent)
        insist(track.reaches(sent, timeout_s), track.control, timeout_s)
        expect(track.control, RIGHT, timeout_s)


def check_patterns(track: Track, memory: Tensor, timeout_s: float) -> None:
    """The receiver's part; blocks and raises as `offer_patterns` does."""
    arrived = track.lane.new_mark()
    for part in _parts(memory):
        part.zero_()
        track.control.put(READY)
        track.wire.receive(part)
        track.lane.mark_lane(arrived)
        insist(track.reaches(arrived, timeout_s), track.control, timeout_s)
        if not torch.equal(part, pattern(len(part), part.device)):
            track.control.put(WRONG)
            raise Unfit(f"of {len(part):,} bytes from {track.control.peer} others arrived than were sent")
        track.control.put(RIGHT)


def expect(control: ControlSocket, word: int, timeout_s: float) -> None:
    """Blocks until the other end has said a word of the self-test; raises as `offer_patterns` does."""
    deadline = time.monotonic() + timeout_s
    while (words := control.take()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {control.peer} to exchange bytes")
        control.wait(deadline - time.monotonic())
    if words[0] != word:
        raise Unfit(f"{control.peer} received other bytes than were sent")


def insist(has_come: bool, control: ControlSocket, timeout_s: float) -> None:
    """Raises TimeoutError where the device has not come to a mark in time."""
    if not has_come:
        raise TimeoutError(f"waited {timeout_s:g} s for the device to exchange bytes with {control.peer}")


def _parts(memory: Tensor) -> tuple[Tensor, Tensor]:
    return memory[:FEW_BYTES], memory
