"""Small numbers over a connected Unix socket: how the two ends of a shared-memory link wake each other.

Waiting is waiting for the socket: the kernel ends it as soon as a number arrives or the peer is gone.
"""

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time

NUMBER = struct.Struct("=i")
MOST_AT_ONCE_BYTES = 1024 * NUMBER.size
"""Small enough that the socket takes all of it or nothing."""


class NumberSocket:
    """Slot numbers in both directions; every wait has a deadline and ends when the peer is gone.

    Args:
        connection: Connected, of type SOCK_STREAM, which delivers what has arrived before it reports that the peer is gone.
        peer: The other end in words, e.g. "stage 1".
    """

    def __init__(self, connection: socket.socket, peer: str) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._peer = peer
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(connection, select.POLLOUT)
        self._either = select.poll()
        self._either.register(connection, select.POLLIN | select.POLLOUT)
        self._unsent = b""
        self._sending = threading.Lock()

    def put(self, number: int, timeout_s: float) -> None:
        """Sends a number; blocks while the peer has hundreds of unread ones."""
        deadline = time.monotonic() + timeout_s
        while not self.try_put(number):
            if not self._writable.poll(1000 * max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"waited {timeout_s:g} s for {self._peer} to take a message")

    def try_put(self, number: int) -> bool:
        """Sends a number if the socket has room for it. Does not block."""
        return self._try_send(NUMBER.pack(number))

    def put_later(self, number: int) -> None:
        """Sends a number now or, if the socket is full, with a later number or in a later `wait`. Does not block; any
        thread may call it.

        The socket is full only while the peer has hundreds of unread numbers, so it does not need this one yet. A peer
        that is gone does not need it at all.
        """
        with self._sending:
            self._unsent += NUMBER.pack(number)
        self._send_unsent()

    def take(self, most: int) -> list[int]:
        """The next numbers, at most `most`; empty if none has arrived. Does not block.

        Raises:
            ConnectionError: The peer is gone and everything that it sent has been taken.
        """
        try:
            packet = self._socket.recv(most * NUMBER.size)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ConnectionError(f"lost {self._peer}: {error.strerror or error}") from None
        if not packet:
            raise ConnectionError(f"lost {self._peer}: it has closed the link")
        return [number for (number,) in NUMBER.iter_unpack(packet)]

    def wait(self, timeout_s: float) -> bool:
        """Waits until `take` would return numbers or raise; returns whether it would. Meanwhile sends postponed numbers."""
        deadline = time.monotonic() + timeout_s
        while self._unsent and not self._readable.poll(0):
            if not self._either.poll(1000 * max(0.0, deadline - time.monotonic())):
                return False
            self._send_unsent()
        return bool(self._readable.poll(1000 * max(0.0, deadline - time.monotonic())))

    def all_taken(self) -> bool:
        """Whether the peer has taken every number that was sent.

        Raises:
            ConnectionError: The peer is gone without having taken them.
        """
        unread = bytearray(4)
        fcntl.ioctl(self._socket, termios.TIOCOUTQ, unread)
        if any(unread):
            return False
        if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise ConnectionError(f"lost {self._peer}: {os.strerror(error)}")
        return True

    def close(self) -> None:
        """Closes this end, which the peer notices; idempotent."""
        self._socket.close()

    def _send_unsent(self) -> None:
        with self._sending, contextlib.suppress(ConnectionError):
            if self._try_send(self._unsent[:MOST_AT_ONCE_BYTES]):
                self._unsent = self._unsent[MOST_AT_ONCE_BYTES:]

    def _try_send(self, packet: bytes) -> bool:
        try:
            self._socket.send(packet)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ConnectionError(f"lost {self._peer}: {error.strerror or error}") from None
        return True
