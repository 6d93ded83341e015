"""Parts of a batch that go to several processes come back as the batch, or say that they do not belong together."""

from fractions import Fraction

import pytest
import torch

from greedypipe.pipeline.parts import Part
from greedypipe.workers.links.gather import PolledJoinedReceiver, join
from greedypipe.workers.links.inprocess import make_inprocess_link
from greedypipe.workers.links.interface import PollingReceiver, Received
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.links.scatter import Branch, SplitSender, split
from tests.conformance.implementations import LAYOUT

HALVES = [Part(Fraction(0), Fraction(1, 2)), Part(Fraction(1, 2), Fraction(1))]
EVALUATED = Message(Kind.EVALUATED, 3)


def links(number: int):
    return zip(*(make_inprocess_link(LAYOUT, slots=4, timeout_s=1) for _ in range(number)), strict=True)


def batch(batch_id: int, rows: int) -> Message:
    tensors = {spec.name: torch.randn(rows, *spec.shape).to(spec.dtype) for spec in LAYOUT.specs[Kind.TRAIN]}
    return Message(Kind.TRAIN, batch_id, 5, tensors)


class Polled(PollingReceiver):
    """Gives what it was given, None where nothing has come yet."""

    def __init__(self, *messages: Message | None) -> None:
        self._messages = list(messages)
        self.released = 0

    def poll(self) -> Received | None:
        message = self._messages.pop(0) if self._messages else None
        return message and Received(message, self._release)

    def receive(self) -> Received:
        while (received := self.poll()) is None:
            assert self._messages, "nothing will come"
        return received

    def close(self) -> None:
        pass

    def _release(self) -> None:
        self.released += 1


@pytest.mark.parametrize("rows", [1, 5, LAYOUT.max_rows])
def test_what_was_split_is_joined_in_order(rows: int) -> None:
    senders, receivers = links(2)
    sender = SplitSender([Branch(one, half) for one, half in zip(senders, HALVES, strict=True)])
    joined = join(receivers)
    sent = batch(7, rows)
    for message in (sent, EVALUATED, batch(8, 2)):
        sender.send(message)
    got = joined.receive().message
    assert (got.kind, got.batch_id, got.step, got.rows, got.batch_rows) == (Kind.TRAIN, 7, 5, rows, 0)
    assert all(torch.equal(got.tensors[name], tensor) for name, tensor in sent.tensors.items())
    assert joined.receive().message == EVALUATED
    assert joined.receive().message.batch_id == 8
    assert sender.stats.messages == 6 and sender.stats.transport == "inprocess"


def test_a_part_of_a_part_is_that_of_the_batch_and_knows_its_size() -> None:
    (sender,), (receiver,) = links(1)
    whole = batch(0, 5)
    half = whole.part(HALVES[1])
    split([Branch(sender, HALVES[1])], HALVES[1]).send(half)
    got = receiver.receive().message
    assert (got.rows, got.batch_rows) == (3, 5)
    quarter = Part(Fraction(1, 2), Fraction(3, 4))
    again, directly = half.part(quarter, HALVES[1]), whole.part(quarter)
    assert (again.rows, again.batch_rows) == (directly.rows, directly.batch_rows) == (1, 5)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in directly.tensors.items())


def test_one_link_alone_is_left_as_it_is() -> None:
    (sender,), (receiver,) = links(1)
    assert split([Branch(sender)]) is sender
    assert join([receiver]) is receiver


def test_parts_that_come_one_after_the_other_are_kept_until_all_are_there() -> None:
    whole = batch(0, 4)
    parts = [whole.part(half) for half in HALVES]
    first, second = Polled(parts[0]), Polled(None, parts[1])
    joined = join([first, second])
    assert isinstance(joined, PolledJoinedReceiver)
    assert joined.poll() is None
    got = joined.poll()
    assert got is not None and got.message.rows == 4
    assert (first.released, second.released) == (1, 1), "a joined batch needs no slot"


@pytest.mark.parametrize("other", [batch(1, 2), Message(Kind.TRAIN, 4), Message(Kind.END, 3)])
def test_parts_of_different_messages_are_an_error(other: Message) -> None:
    with pytest.raises(ValueError, match="replicas have fallen out of step"):
        join([Polled(EVALUATED), Polled(other)]).receive()
