"""The fork server of this process: it imports once what every rank needs, and ranks are forks of it.

Imports nothing heavy itself, so that a command can start the server first and do its own imports meanwhile.
"""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing import forkserver, resource_tracker

RANKS_NEED = ("torch", "torch.distributed", "torch._dynamo", "greedypipe.launch.on_host.ranks")
FORKSERVER_PRELOAD = [*RANKS_NEED, "sklearn.datasets"]
"""For many runs on the digits; one run is faster where the stage that reads them imports what that takes."""


def start(preload: Sequence[str]) -> None:
    """Starts the server, which imports `preload`; does not wait for that.

    SIGTERM to the process group passes it by: the ranks are told by whoever started them, and a server that ended would
    look to them like the end of their launcher. Ranks have to unblock it (`launch.on_host.ranks`).
    """
    # One thread per process unless the user says otherwise, as under torchrun; read when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    multiprocessing.set_forkserver_preload(list(preload))
    # Starting the tracker, which the server would do, unblocks SIGTERM.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop() -> None:
    """Ends a server that nobody has a use for after all, also while it is still importing."""
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
