"""No order of a device's work that a link's waits allow spoils a message; without any one of its waits some order does.

On a simulated device (tests.conformance.simulated), so it samples orders.
"""

import random
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from greedypipe.workers.links import gloo_wire, paced_receiver, pacing
from greedypipe.workers.links.interface import Received
from greedypipe.workers.links.messages import AnyMessage, Kind, Message
from tests.conformance.implementations import LAYOUT, MAX_ROWS
from tests.conformance.simulated import Busy, SimulatedDevice, SimulatedLane, SimulatedWires
from tests.conformance.stand_ins import gloo_wires, mapped_ends, paced_ends

COUNT, TIMEOUT_S = 25, 5.0
KINDS = ("paced", "staged", "mapped")
TRIES = 10


def tensors() -> dict[str, Tensor]:
    return {spec.name: torch.zeros(MAX_ROWS, *spec.shape, dtype=spec.dtype) for spec in LAYOUT.specs[Kind.TRAIN]}


class Ends:
    """Both ends of a link on a simulated device."""

    def __init__(self, kind: str, seed: int, slots: int = 2) -> None:
        self.device = SimulatedDevice(seed, longest_pause_s=0.0003)
        self.lanes = SimulatedLane(self.device, "sender"), SimulatedLane(self.device, "receiver")
        self.wires = SimulatedWires(self.device, self.lanes)
        wires = {"paced": self.wires.halves, "staged": gloo_wires(LAYOUT, self.lanes)}.get(kind)
        self.sender, self.receiver = (
            paced_ends(LAYOUT, slots, TIMEOUT_S, self.lanes, wires)
            if wires
            else mapped_ends(LAYOUT, slots, TIMEOUT_S, self.lanes)
        )

    def close(self) -> None:
        self.receiver.close()
        self.sender.abandon()
        self.device.close()


def arrives_as_sent(kind: str, seed: int, busy_s: float = 0.003) -> bool:
    """Whether every message is read as it was when it was sent. A sender overwrites its tensors on its stream at once, a
    reader reads some messages twice, and both streams are busy now and then."""
    ends, chance = Ends(kind, seed), random.Random(seed)
    sent, chance_of_sender = tensors(), random.Random(seed + 1)
    right: list[bool] = []

    def fill(number: int) -> None:
        for tensor in sent.values():
            tensor.fill_(number + 1)

    def produce() -> None:
        for number in range(COUNT):
            ends.device.put("sender stage", Busy(chance_of_sender.choice((0.0, busy_s)) * chance_of_sender.random()))
            ends.lanes[0].run(lambda number=number: fill(number))
            ends.sender.send(Message(Kind.TRAIN, number, 0, sent))
        ends.sender.close()

    def read(message: AnyMessage, number: int) -> None:
        right.append(all(bool((tensor.float() == number + 1).all()) for tensor in message.tensors.values()))

    def consume(received: Received, number: int) -> None:
        message, release, lend, give_back = received
        assert message.batch_id == number and lend and give_back
        for _ in range(chance.choice((1, 1, 2))):
            lend()
            ends.device.put("receiver stage", Busy(chance.choice((0.0, busy_s)) * chance.random()))
            ends.lanes[1].run(lambda: read(message, number))
            give_back()
        release()

    producing = threading.Thread(target=produce, daemon=True)
    producing.start()
    try:
        for number in range(COUNT):
            consume(ends.receiver.receive(), number)
        producing.join(TIMEOUT_S)
        ends.device.drain()
        return all(right) and not producing.is_alive()
    finally:
        ends.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_arrives_as_it_was_sent(kind: str) -> None:
    assert all(arrives_as_sent(kind, seed) for seed in range(2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_does_so_in_many_orders(kind: str) -> None:
    assert all(arrives_as_sent(kind, seed) for seed in range(100, 130))


Patch = Callable[[pytest.MonkeyPatch], None]


def without(end: str, name: str) -> Patch:
    """Leaves out a call of one end's lane."""

    def patch(patches: pytest.MonkeyPatch) -> None:
        real = getattr(SimulatedLane, name)

        def call(lane: SimulatedLane, mark: Any) -> Any:
            return None if lane.own.startswith(end) else real(lane, mark)

        patches.setattr(SimulatedLane, name, call)

    return patch


def without_asking(end: str) -> Patch:
    """Takes every mark for reached at one end."""

    def patch(patches: pytest.MonkeyPatch) -> None:
        real = SimulatedLane.is_reached
        patches.setattr(SimulatedLane, "is_reached", lambda lane, mark: lane.own.startswith(end) or real(lane, mark))

    return patch


def without_waiting(end: str) -> Patch:
    """Leaves out the waits of one end's host, but not its looks at slots that are being read."""

    def patch(patches: pytest.MonkeyPatch) -> None:
        real = pacing.wait_for_mark
        patches.setattr(
            pacing, "wait_for_mark", lambda lane, mark, *rest: lane.own.startswith(end) or real(lane, mark, *rest)
        )

    return patch


def without_waiting_for_the_buffer(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(gloo_wire, "wait_for_mark", lambda lane, mark, *rest: True)


LEFT_OUT: dict[str, tuple[str, list[Patch]]] = {
    "paced: the copy into the sender's slot": ("paced", [without_waiting("sender"), without("sender", "hold_lane")]),
    "paced: the marking of that copy": ("paced", [without("sender", "mark_stage")]),
    "paced: the arrival": ("paced", [without_waiting("receiver"), without("receiver", "hold_stage")]),
    "paced: the marking of the arrival": ("paced", [without("receiver", "mark_lane")]),
    "paced: the end of the reading": ("paced", [without_asking("receiver")]),
    "paced: the marking of the reading": ("paced", [without("receiver", "mark_stage")]),
    "staged: the copy into page-locked memory": ("staged", [without_waiting_for_the_buffer]),
    "staged: the copy into the sender's slot": ("staged", [without_waiting("sender"), without("sender", "hold_lane")]),
    "staged: the arrival": ("staged", [without_waiting("receiver"), without("receiver", "hold_stage")]),
    "staged: the end of the reading": ("staged", [without_asking("receiver")]),
    "mapped: the arrival": ("mapped", [without_asking("receiver"), without("receiver", "hold_stage")]),
    "mapped: the marking of the copy": ("mapped", [without("sender", "mark_stage")]),
    "mapped: the end of the reading": ("mapped", [without("sender", "hold_stage")]),
    "mapped: the marking of the reading": ("mapped", [without("receiver", "mark_stage")]),
}


def is_noticed(what: str, patches: pytest.MonkeyPatch, seed: int) -> bool:
    kind, left_out = LEFT_OUT[what]
    for patch in left_out:
        patch(patches)
    try:
        return not arrives_as_sent(kind, seed, busy_s=0.012)
    finally:
        patches.undo()


@pytest.mark.parametrize("what", LEFT_OUT)
def test_a_wait_that_is_left_out_is_noticed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(is_noticed(what, monkeypatch, seed) for seed in range(TRIES))


@pytest.mark.slow
@pytest.mark.parametrize("what", LEFT_OUT)
def test_it_is_noticed_in_almost_every_order(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noticed = sum(is_noticed(what, monkeypatch, seed) for seed in range(TRIES))
    assert noticed >= 0.8 * TRIES


def test_no_half_of_a_transfer_waits_for_a_reader() -> None:
    """It would hold multiprocessors of the sender's device, and whatever synchronises that device, until somebody reads."""
    ends, unread_s, count = Ends("paced", 0, slots=3), 0.1, 8
    sending = threading.Thread(
        target=lambda: [ends.sender.send(Message(Kind.TRAIN, number, 0, tensors())) for number in range(count)]
    )
    sending.start()
    try:
        for _ in range(count):
            time.sleep(unread_s)
            ends.receiver.receive().release()
        sending.join(TIMEOUT_S)
        assert len(ends.wires.waits_s) == count and statistics.median(ends.wires.waits_s) < 0.3 * unread_s
    finally:
        ends.close()


def test_a_receiver_that_receives_when_somebody_reads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the test before finds what it is there for."""
    take = paced_receiver.PacedReceiver._take

    def late(receiver: paced_receiver.PacedReceiver, header: tuple[int, ...]) -> Received:
        deadline = time.monotonic() + TIMEOUT_S
        while receiver._arrived and time.monotonic() < deadline:
            time.sleep(0.001)
        return take(receiver, header)

    monkeypatch.setattr(paced_receiver.PacedReceiver, "_take", late)
    with pytest.raises(AssertionError):
        test_no_half_of_a_transfer_waits_for_a_reader()
