"""Proof by the kernel that a process is a rank of this run: no process is killed without it.

A row of the board names a pid, but everybody who reaches the store can write one there. So every process listens on a socket
whose name follows from its run, rank and incarnation, and the kernel tells whoever connects the listener's pid and user. The
name disappears with the process; a stopped process keeps it.
"""

import contextlib
import os
import socket

from greedypipe.workers.links.proof import check_user, peer_of
from greedypipe.workers.telemetry.machine import kill

BACKLOG = 64
"""Connections that may queue: none is ever accepted."""


class Identity:
    """Proves to the processes of this host that the calling one is a rank of a run, until it is closed or has ended.

    Args:
        run: The run's secret (workers.telemetry.topics.RUN).
        incarnation: How often this rank has been started again alone.
    """

    def __init__(self, run: str, rank: int, incarnation: int) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # If the name is taken, no other process can kill this one; it ends by its own deadlines.
        with contextlib.suppress(OSError):
            self._listener.bind(_address(run, rank, incarnation))
            self._listener.listen(BACKLOG)

    def close(self) -> None:
        """Releases the name; idempotent."""
        self._listener.close()


def kill_member(run: str, rank: int, incarnation: int) -> bool:
    """Kills a process of a run if it lives on this host under this user; returns whether it did. Does not block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(_address(run, rank, incarnation))
            check_user(connection, f"rank {rank}")
        except OSError:
            return False
        process, _ = peer_of(connection)
    if process == os.getpid():
        return False
    kill(process)
    return True


def _address(run: str, rank: int, incarnation: int) -> str:
    return f"\0greedypipe-{run}-{rank}-{incarnation}"
