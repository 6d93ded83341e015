"""One outbox for the parts of a batch that go to several replicas of the next stage."""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from greedypipe.workers.links.interface import LinkStats, Sender
from greedypipe.workers.links.messages import Message


class Branch(NamedTuple):
    """A link, and the range of rows that it carries, as shares of this process's rows."""

    sender: Sender
    begin: Fraction
    end: Fraction


class SplitSender(Sender):
    """Sends each replica its rows of every batch, and messages without rows to all replicas.

    Waits for room at each replica in turn: since replicas step together, the one with the least room decides.
    """

    def __init__(self, branches: Sequence[Branch]) -> None:
        self._branches = branches

    @property
    def stats(self) -> LinkStats:
        """Sums over the links; `messages` counts every part."""
        first, *others = (branch.sender.stats for branch in self._branches)
        return functools.reduce(LinkStats.plus, others, first)

    @property
    def wait_room_s(self) -> float:
        return sum(branch.sender.wait_room_s for branch in self._branches)

    def send(self, message: Message) -> None:
        for sender, begin, end in self._branches:
            sender.send(message.part(begin, end))

    def close(self) -> None:
        for branch in self._branches:
            branch.sender.close()

    def abandon(self) -> None:
        for branch in self._branches:
            branch.sender.abandon()


def split(branches: Sequence[Branch]) -> Sender:
    """One sender for all branches: the link itself if there is only one."""
    return branches[0].sender if len(branches) == 1 else SplitSender(branches)
