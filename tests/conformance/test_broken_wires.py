"""A transfer that fails on its way, of which its device says nothing, ends both ends of a paced link at once."""

import time

import pytest

from greedypipe.workers.links.interface import Receiver, Sender
from greedypipe.workers.links.pacing import BrokenWire
from tests.conformance.implementations import LAYOUT, simulated_lanes
from tests.conformance.simulated import Half, SimulatedWires
from tests.conformance.stand_ins import paced_ends
from tests.conformance.test_links import message

TIMEOUT_S, SOON_S = 20.0, 2.0
SENDER, RECEIVER = 0, 1
REPORTED, CLOSED = "lost {}: NCCL reports COMM_ERROR", "lost {}: it has closed the link"


def a_transfer_that_never_ends() -> tuple[SimulatedWires, Sender, Receiver]:
    lanes = simulated_lanes()
    wires = SimulatedWires(lanes[0].device, lanes)
    wires.is_stuck = True
    sender, receiver = paced_ends(LAYOUT, 2, TIMEOUT_S, lanes, wires.halves)
    sender.send(message(batch_id=0))
    until = time.monotonic() + SOON_S
    while not all(isinstance(wires.device.head(lane.own), Half) for lane in lanes):
        assert time.monotonic() < until, "the transfer has not begun"
        time.sleep(0.001)
    return wires, sender, receiver


@pytest.mark.parametrize("noticing", [(SENDER,), (RECEIVER,), (SENDER, RECEIVER)], ids=str)
def test_both_ends_end_long_before_the_deadline_and_say_what_is_known(noticing: tuple[int, ...]) -> None:
    wires, sender, receiver = a_transfer_that_never_ends()
    started = time.monotonic()
    for end in noticing:
        wires.halves[end].failure = BrokenWire(REPORTED.format(f"stage {1 - end}"))
    with pytest.raises(ConnectionError) as at_receiver:
        receiver.receive()
    with pytest.raises(ConnectionError) as at_sender:
        sender.close()
    assert time.monotonic() - started < SOON_S
    for end, caught in ((SENDER, at_sender), (RECEIVER, at_receiver)):
        said = [REPORTED] if noticing == (end,) else [CLOSED] if end not in noticing else [REPORTED, CLOSED]
        assert str(caught.value) in [text.format(f"stage {1 - end}") for text in said]
    assert BrokenWire in {at_sender.type, at_receiver.type}
    receiver.close()
    assert len(wires.aborted) == 2
    wires.device.close()


def test_a_sender_whose_wire_has_failed_takes_no_further_message() -> None:
    wires, sender, receiver = a_transfer_that_never_ends()
    wires.halves[SENDER].failure = BrokenWire("lost stage 1: NCCL reports TIMEOUT")
    with pytest.raises(ConnectionError, match="lost stage 1: NCCL reports TIMEOUT"):
        for batch_id in range(1, 9):
            sender.send(message(batch_id=batch_id))
    sender.abandon()
    receiver.close()
    wires.device.close()
