"""Which process is a rank of this run, as the kernel says: the only ground on which one process kills another.

A row of the board names a pid, but whoever reaches the store can write one there. So every process listens at a name that
follows from its run, its rank and its incarnation, and the kernel tells whoever connects which process that is and whose.
The name vanishes with the process, and a process that is stopped keeps it.
"""

import contextlib
import os
import socket

from greedypipe.workers.links.proof import check_user, peer_of
from greedypipe.workers.telemetry.machine import kill

BACKLOG = 64
"""Connections that wait to be accepted, which nobody does."""


class Identity:
    """Proves to the processes of this host that the calling one is a rank of a run, until it is closed or has ended.

    Args:
        run: The run's secret (workers.telemetry.topics.RUN).
        incarnation: How often this rank has been started again alone.
    """

    def __init__(self, run: str, rank: int, incarnation: int) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A namesake would be an impostor: then nobody kills this process, and it ends by its own deadlines.
        with contextlib.suppress(OSError):
            self._listener.bind(_address(run, rank, incarnation))
            self._listener.listen(BACKLOG)

    def close(self) -> None:
        """Gives the name up; idempotent."""
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
