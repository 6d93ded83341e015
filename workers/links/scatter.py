"""One outbox for the parts of a batch that go to several replicas of the next stage."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from greedypipe.pipeline.parts import WHOLE, Part
from greedypipe.workers.links.interface import LinkStats, Sender
from greedypipe.workers.links.messages import Message


class Branch(NamedTuple):
    """A link, and the part of every batch that it carries."""

    sender: Sender
    part: Part = WHOLE


class SplitSender(Sender):
    """Sends each replica its rows of every batch, and messages without rows to all replicas.

    Waits for room at each replica in turn: since replicas step together, the one with the least room decides.

    Args:
        own: What of every batch this process has.
    """

    def __init__(self, branches: Sequence[Branch], own: Part = WHOLE) -> None:
        self._branches = branches
        self._own = own

    @property
    def stats(self) -> LinkStats:
        """Sums over the links; `messages` counts every part."""
        first, *others = (branch.sender.stats for branch in self._branches)
        return functools.reduce(LinkStats.plus, others, first)

    @property
    def wait_room_s(self) -> float:
        return sum(branch.sender.wait_room_s for branch in self._branches)

    def send(self, message: Message) -> None:
        for sender, part in self._branches:
            sender.send(message.part(part, self._own))

    def close(self) -> None:
        for branch in self._branches:
            branch.sender.close()

    def abandon(self) -> None:
        for branch in self._branches:
            branch.sender.abandon()


def split(branches: Sequence[Branch], own: Part = WHOLE) -> Sender:
    """One sender for all branches: the link itself if there is only one."""
    return branches[0].sender if len(branches) == 1 else SplitSender(branches, own)
