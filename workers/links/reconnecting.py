"""Links of a stage that continues when a neighbour dies, and reconnects when the neighbour is back.

Only with replay, where old batches may be read again and new ones dropped. Messages in transit are lost, and so are
messages sent while the receiver is away, except the end of the stream, which waits for it.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from greedypipe.workers.links.interface import LinkStats, Received, Receiver, Sender
from greedypipe.workers.links.messages import Kind, Message

End = TypeVar("End")
Connect = Callable[[], End]
"""Builds one end of a link; blocks until the neighbour, which may have been started again, has built the other. Raises
ConnectionError if it does not in time."""


class MendingReceiver(Receiver):
    """Waits for its sender to come back, and continues with its messages. Meanwhile the reader reads old items."""

    def __init__(self, connect: Connect[Receiver]) -> None:
        self._connect = connect
        self._link = connect()
        self._closed = False
        self.slot_bytes = self._link.slot_bytes

    def receive(self) -> Received:
        while True:
            try:
                return self._link.receive()
            except ConnectionError:
                if self._closed:
                    raise
                self._link.close()
                self._link = self._connect()

    def close(self) -> None:
        self._closed = True
        self._link.close()


class MendingSender(Sender):
    """Drops messages while its receiver is away.

    | thread  | consumes | waits for           | unblocked by        |
    |---------|----------|---------------------|---------------------|
    | mender  | -        | the receiver        | it, or the deadline |
    | main    | -        | a slot, as any link | the receiver        |
    """

    def __init__(self, connect: Connect[Sender]) -> None:
        self._connect = connect
        self._link: Sender | None = connect()
        self._past = LinkStats(self._link.stats.transport)
        self._mended = threading.Condition()
        self._failure: BaseException | None = None

    @property
    def stats(self) -> LinkStats:
        """Figures of all links so far, summed."""
        link = self._link
        return self._past.plus(link.stats) if link else self._past

    def send(self, message: Message) -> None:
        while not self._try_to_send(message):
            if message.kind != Kind.END:
                self._past.dropped += 1
                return
            self._wait_for_link()

    def abandon(self) -> None:
        if link := self._link:
            link.abandon()

    def _try_to_send(self, message: Message) -> bool:
        if self._failure:
            raise self._failure
        if (link := self._link) is None:
            return False
        try:
            link.send(message)
        except ConnectionError:
            self._give_up(link)
            return False
        return True

    def close(self) -> None:
        """As of any sender; but a receiver that has left needs nothing any more."""
        if link := self._link:
            with contextlib.suppress(ConnectionError):
                link.close()

    def _give_up(self, link: Sender) -> None:
        self._past = self._past.plus(link.stats)
        self._link = None
        threading.Thread(target=self._mend, name="mend a link", daemon=True).start()

    def _mend(self) -> None:
        try:
            link = self._connect()
            with self._mended:
                self._link = link
                self._mended.notify_all()
        except BaseException as error:  # kept: the next send raises it
            with self._mended:
                self._failure = error
                self._mended.notify_all()

    def _wait_for_link(self) -> None:
        with self._mended:
            # The mender has its own deadline, and its error names the peer.
            self._mended.wait_for(lambda: self._link or self._failure)
