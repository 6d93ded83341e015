"""Lines of feedback that answers no batch, where nobody waits: the newest entry, once, and its age."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from greedypipe.launch.process.build_stage import NEWEST
from greedypipe.pipeline.batch import TensorSpec
from greedypipe.pipeline.feedback import NOTHING, Entry
from greedypipe.workers.inbox import FEEDBACK, SLOTS_BEYOND_BUFFER, Inbox
from greedypipe.workers.lines import ReceivedNewest, SentNewest
from greedypipe.workers.links.inprocess import make_inprocess_link
from greedypipe.workers.links.messages import Kind, MessageLayout
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.status import StageStatus
from tests.conformance.calls import TIMEOUT_S, until
from tests.unit.tiny import CPU

LAYOUT = MessageLayout(1, {Kind.FEEDBACK: (TensorSpec("parameters", (2,), torch.float32),)})


def entry(value: float) -> Entry:
    return Entry({"parameters": torch.full((1, 2), value)})


class Ends:
    """Both ends, and the blocks there: all that lines look at is their turn."""

    def __init__(self) -> None:
        self.behind: Any = SimpleNamespace(turn=0, line=())
        self.before: Any = SimpleNamespace(turn=0, line=())
        slots = NEWEST.capacity + SLOTS_BEYOND_BUFFER
        sender, receiver = make_inprocess_link(LAYOUT, slots=slots, timeout_s=TIMEOUT_S, sender="stage 1")
        status = StageStatus(Seat(0, 0), blocks=[0], pid=0, host="here")
        self.inbox = Inbox(
            receiver, NEWEST, seed=0, status=status, upstream="stage 1", timeout_s=TIMEOUT_S, awaited=FEEDBACK
        )
        self.sent = SentNewest(sender, self.behind)
        self.received = ReceivedNewest(self.inbox, CPU, self.before)

    def send(self, turn: int, value: float | None) -> None:
        """What the block behind puts in as its `turn`th turn; returns once it has arrived."""
        self.behind.turn = turn
        arrived = self.inbox.stats().inserted
        self.sent.put(NOTHING if value is None else entry(value), 0)
        until(lambda: self.inbox.stats().inserted == arrived + (value is not None))

    def take(self, turn: int) -> float | None:
        """What the block before finds in its `turn`th turn."""
        self.before.turn = turn
        found = self.received.get()
        return float(found["parameters"][0, 0]) if found else None


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.sent.end()
    made.received.end()
    made.sent.close()
    made.inbox.close()


def test_the_newest_entry_is_found_once_and_nobody_waits(ends: Ends) -> None:
    assert ends.take(1) is None and ends.received.age_mean is None
    for turn in range(1, 20):
        ends.send(turn, float(turn))
    assert [ends.take(turn) for turn in (2, 3)] == [19.0, None]
    assert ends.received.wait_s == 0


def test_an_empty_entry_hides_no_other(ends: Ends) -> None:
    ends.send(1, 1.0)
    ends.send(2, None)
    assert ends.take(1) == 1.0


def test_the_age_is_by_how_many_turns_the_sender_was_behind(ends: Ends) -> None:
    ends.send(2, 2.0)
    assert ends.take(7) == 2.0 and ends.received.age_mean == 5
    ends.send(11, 11.0)
    assert ends.take(8) == 11.0 and ends.received.age_mean == (5 - 3) / 2


def test_a_block_that_has_finished_takes_nothing(ends: Ends) -> None:
    ends.send(1, 1.0)
    assert ends.take(0) is None and ends.take(1) == 1.0
