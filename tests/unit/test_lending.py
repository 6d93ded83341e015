"""Messages that are lent: each reading is ordered after the arrival, and the slot's next use after the reading."""

import threading
from typing import Any

import pytest
import torch

from greedypipe.buffers.replay import BuffersConfig
from greedypipe.launch.process.build_stage import NEWEST
from greedypipe.pipeline.parts import WHOLE, Part
from greedypipe.workers.inbox import Inbox
from greedypipe.workers.lines import ReceivedNewest
from greedypipe.workers.links.gather import PolledJoinedReceiver, join
from greedypipe.workers.links.interface import PollingReceiver, Received
from greedypipe.workers.links.lane import HostLane
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.status import StageStatus
from tests.conformance.calls import TIMEOUT_S, until
from tests.conformance.implementations import LAYOUT
from tests.conformance.stand_ins import nccl_wires, paced_ends
from tests.unit.test_split_and_join import HALVES, batch
from tests.unit.tiny import CPU


class Lending(PollingReceiver):
    """Gives these messages, and writes down what is done with each."""

    lends = True

    def __init__(self, *messages: Message, log: list[str] | None = None) -> None:
        self._messages = list(messages)
        self._closed = threading.Event()
        self.log: list[str] = [] if log is None else log

    def poll(self) -> Received | None:
        if not self._messages:
            return None
        message = self._messages.pop(0)

        def note(what: str) -> Any:
            return lambda: self.log.append(f"{what} {message.batch_id}")

        return Received(message, note("release"), note("lend"), note("give back"))

    def receive(self) -> Received:
        if (received := self.poll()) is None:
            self._closed.wait(TIMEOUT_S)
            raise ConnectionError("nothing comes")
        return received

    def close(self) -> None:
        self._closed.set()


def inbox(receiver: PollingReceiver, config: BuffersConfig) -> Inbox:
    status = StageStatus(Seat(1, 1), blocks=[1], pid=0, host="here")
    return Inbox(receiver, config, seed=0, status=status, upstream="stage 0", timeout_s=TIMEOUT_S)


def test_a_queue_lends_each_message_while_it_is_read() -> None:
    receiver = Lending(Message(Kind.TRAIN, 0), Message(Kind.TRAIN, 1), Message(Kind.END, 2))
    for delivery in inbox(receiver, BuffersConfig(capacity=3)):
        receiver.log.append(f"read {delivery.message.batch_id}")
    assert receiver.log == [f"{what} {number}" for number in range(3) for what in ("lend", "read", "give back", "release")]


def test_a_message_that_is_read_again_is_lent_again() -> None:
    receiver = Lending(Message(Kind.TRAIN, 7))
    replaying = inbox(receiver, BuffersConfig(policy="replay", capacity=1, max_reuse=2))
    deliveries = iter(replaying)
    for _ in range(2):
        assert next(deliveries).message.batch_id == 7
    replaying.close()
    with pytest.raises(ConnectionError, match=r"nothing comes|closed here"):
        next(deliveries)
    assert receiver.log == ["lend 7", "give back 7"] * 2


def test_the_newest_entry_of_feedback_is_lent_too() -> None:
    receiver = Lending(Message(Kind.FEEDBACK, 3, tensors={"parameters": torch.ones(1, 2)}))
    block: Any = type("Block", (), {"turn": 0, "line": ()})()
    newest = inbox(receiver, NEWEST)
    line = ReceivedNewest(newest, CPU, block)
    until(lambda: newest.stats().inserted == 1)
    block.turn = 1
    found = line.get()
    assert found["parameters"].tolist() == [[1, 1]]
    assert receiver.log == ["lend 3", "give back 3"]
    newest.close()


@pytest.mark.parametrize(("own", "batch_rows"), [(WHOLE, 0), (Part(HALVES[0].begin, HALVES[1].begin), 8)])
def test_parts_that_are_lent_are_put_together_by_their_reader(own: Part, batch_rows: int) -> None:
    whole, log = batch(5, 4), list[str]()
    parts = [Message(Kind.TRAIN, 5, 5, whole.part(half).tensors, 8) for half in HALVES]
    joined = join([Lending(part, Message(Kind.EVALUATED, 9), log=log) for part in parts], own)
    assert isinstance(joined, PolledJoinedReceiver) and joined.lends
    received = joined.receive()
    assert log == [], "nothing is read before it is lent, nor released before it is read"
    assert received.lend and received.give_back
    received.lend()
    message = received.message.to(CPU)
    assert (message.kind, message.batch_id, message.rows, message.batch_rows) == (Kind.TRAIN, 5, 4, batch_rows)
    assert all(torch.equal(message.tensors[name], tensor) for name, tensor in whole.tensors.items())
    received.give_back(), received.release()
    assert log == [f"{what} 5" for what in ("lend", "lend", "give back", "give back", "release", "release")]
    assert joined.receive().message == Message(Kind.EVALUATED, 9)


def test_parts_of_different_messages_are_an_error() -> None:
    with pytest.raises(ValueError, match="replicas have fallen out of step"):
        join([Lending(batch(1, 2)), Lending(batch(2, 2))]).receive()


def test_parts_from_a_link_that_lends_and_from_one_that_does_not_are_put_together() -> None:
    class Kept(Lending):
        lends = False

        def poll(self) -> Received | None:
            received = super().poll()
            return received and Received(received.message, received.release)

    whole, log = batch(1, 5), list[str]()
    first, second = (whole.part(half) for half in HALVES)
    received = join([Kept(first, log=log), Lending(second, log=log)]).receive()
    assert received.lend and received.give_back
    received.lend()
    assert torch.equal(received.message.to(CPU).tensors["activation"], whole.tensors["activation"])
    received.give_back(), received.release()
    assert log == ["lend 1", "give back 1", "release 1", "release 1"]


def test_an_inbox_over_a_paced_link_gives_the_stream() -> None:
    sender, receiver = paced_ends(LAYOUT, 6, TIMEOUT_S, (HostLane(), HostLane()), nccl_wires())
    stream = [batch(0, 3), Message(Kind.EVALUATED, 1), batch(1, 1), Message(Kind.END, 2)]
    for message in stream:
        sender.send(message)
    read = inbox(receiver, BuffersConfig(capacity=2))
    for sent, delivery in zip(stream, read, strict=True):
        assert (delivery.message.kind, delivery.message.batch_id) == (sent.kind, sent.batch_id)
        assert all(torch.equal(delivery.message.tensors[name], tensor) for name, tensor in sent.tensors.items())
    sender.close(), read.close()
