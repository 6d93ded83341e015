"""How the two ends of a link prove to each other that they belong to one run.

Each end shows the other a secret that stands in the run's store alone. On one host the kernel also names the user at the
other end of a socket (SO_PEERCRED), and another user is turned away before a byte is exchanged.
"""

import hmac
import os
import secrets
import socket
import struct
from dataclasses import dataclass

from torch.distributed import Store

from greedypipe.workers.links.patience import Patience

SECRET_BYTES = 16
_KEY = "proof"
_CREDENTIALS = struct.Struct("=3i")
"""Process, user and group: `struct ucred` of unix(7)."""


class Stranger(ConnectionError):
    """What has connected belongs to another run or another user."""


@dataclass(frozen=True)
class Proof:
    """What the sender of a link shows its receiver, and what it is shown in return."""

    sender: bytes
    receiver: bytes

    @classmethod
    def offer(cls, store: Store) -> "Proof":
        """New secrets, put into a store that belongs to one link alone."""
        proof = cls(secrets.token_bytes(SECRET_BYTES), secrets.token_bytes(SECRET_BYTES))
        store.set(_KEY, (proof.sender + proof.receiver).hex())
        return proof

    @classmethod
    def find(cls, store: Store, patience: Patience) -> "Proof":
        """The secrets that the other end has offered. Blocks; raises as `Patience.read` does."""
        try:
            both = bytes.fromhex(patience.read(store, _KEY).decode())
        except ValueError:
            both = b""
        return cls(both[:SECRET_BYTES], both[SECRET_BYTES:])


def check_secret(shown: bytes, expected: bytes, peer: str) -> None:
    """Raises Stranger unless the other end has shown the right secret."""
    if len(expected) != SECRET_BYTES or not hmac.compare_digest(shown, expected):
        raise Stranger(f"what has connected in the place of {peer} does not belong to this run")


def check_user(connection: socket.socket, peer: str) -> None:
    """Raises Stranger where another user's process is at the other end of a Unix socket."""
    _, user = peer_of(connection)
    if user != os.geteuid():
        raise Stranger(f"what has connected in the place of {peer} belongs to user {user}")


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end of a Unix socket, as the kernel has recorded them."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(packed)
    return process, user
