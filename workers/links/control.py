"""Headers and credits of a link whose tensors travel another way: packets of fixed size over a connected socket.

The socket is also how an end learns at once that the other one is gone, which a GPU does not tell.
"""

import contextlib
import os
import select
import socket
import struct
import threading
import time
import weakref

WORDS = 8
PACKET = struct.Struct(f"={WORDS}q")
"""Downstream a message's header, upstream a word and what it is about."""
MANY = 64


class ControlSocket:
    """Packets in both directions. One thread takes and waits, any thread puts; every wait has a deadline and can be ended.

    Args:
        connection: Connected, of type SOCK_STREAM: AF_UNIX on one host, TCP between hosts.
        peer: The other end in words, e.g. "stage 1".
    """

    def __init__(self, connection: socket.socket, peer: str) -> None:
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self.peer = peer
        self._socket = connection
        self._poked = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Descriptors stay until nobody can use them any more: closing them under another thread would give it a stranger's.
        weakref.finalize(self, _close_all, connection, self._poked)
        self._sending = threading.Lock()
        self._unsent = bytearray()
        self._unread = b""
        self._ended = False
        self._closed = False

    def put(self, *words: int) -> None:
        """Sends a packet now or, while the peer has hundreds of unread ones, in a later call or `wait`. Does not block; any
        thread may call it. A peer that is gone is for `take` to report."""
        packet = PACKET.pack(*words, *(0,) * (WORDS - len(words)))
        with self._sending:
            self._unsent += packet
        self._send()
        if self._unsent:
            self.poke()  # a thread that waits here now has something to send

    def flush(self, timeout_s: float) -> None:
        """Blocks until everything has been sent.

        Raises:
            TimeoutError: The peer reads nothing.
        """
        deadline = time.monotonic() + timeout_s
        while self._unsent:
            if not self._wait_for_socket(deadline - time.monotonic(), select.POLLOUT):
                raise TimeoutError(f"waited {timeout_s:g} s for {self.peer} to take a message")
            self._send()

    def take(self) -> tuple[int, ...] | None:
        """The next packet; None if none has come. Does not block.

        Raises:
            ConnectionError: The peer is gone and everything that it sent has been taken, or this end has been closed.
        """
        if len(self._unread) < PACKET.size and not self._ended:
            self._read()
        if len(self._unread) >= PACKET.size:
            packet, self._unread = self._unread[: PACKET.size], self._unread[PACKET.size :]
            return PACKET.unpack(packet)
        if self._ended or self._closed:
            raise self.lost()
        return None

    def wait(self, timeout_s: float | None) -> None:
        """Returns when `take` has something to say, somebody has poked, or the time is over. Meanwhile sends what is left.

        Args:
            timeout_s: None: for ever.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while len(self._unread) < PACKET.size and not (self._ended or self._closed):
            left_s = None if deadline is None else deadline - time.monotonic()
            events = self._wait_for_socket(left_s, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            if events & select.POLLOUT:
                self._send()
            if not events or events & ~select.POLLOUT:
                return

    def poke(self) -> None:
        """Ends a `wait`, this one or the next. Any thread."""
        os.eventfd_write(self._poked, 1)

    def is_peer_there(self) -> bool:
        """Whether the peer is still there, as far as is known. Does not block; for the thread that takes."""
        if not self._ended:
            self._read()
        return not (self._ended or self._closed)

    def lost(self) -> ConnectionError:
        """The error to raise when the peer is gone."""
        return ConnectionError(f"lost {self.peer}: it has closed the link")

    def close(self) -> None:
        """Tells the peer that this end is gone, and wakes a thread that waits here. Idempotent; any thread."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.poke()

    def _wait_for_socket(self, timeout_s: float | None, events: int) -> int:
        """Waits for events of the socket or a poke, which it takes; returns what has happened, 0 at the deadline."""
        poll = select.poll()  # two threads may wait, one of them to `flush`
        poll.register(self._poked, select.POLLIN)
        poll.register(self._socket, events)
        found = dict(poll.poll(None if timeout_s is None else 1000 * max(0.0, timeout_s)))
        if self._poked in found:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._poked)
        return found.get(self._socket.fileno(), 0) | found.get(self._poked, 0)

    def _send(self) -> None:
        with self._sending:
            while self._unsent:
                try:
                    sent = self._socket.send(self._unsent[: MANY * PACKET.size])
                except BlockingIOError:
                    return
                except OSError:
                    sent = len(self._unsent)  # one that is gone need not know
                del self._unsent[:sent]

    def _read(self) -> None:
        try:
            received = self._socket.recv(MANY * PACKET.size)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        self._unread += received
        self._ended = not received


def _close_all(connection: socket.socket, poked: int) -> None:
    connection.close()
    os.close(poked)
