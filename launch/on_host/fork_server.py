"""The fork server of this process: it imports once what every rank needs, and ranks are forks of it.

Imports nothing heavy itself, so that a command can start the server first and do its own imports meanwhile.
"""

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing import forkserver

FORKSERVER_PRELOAD = [
    "torch",
    "torch.distributed",
    "torch._dynamo",
    "greedypipe.launch.process.run_process",
    "sklearn.datasets",
]


def start(preload: Sequence[str]) -> None:
    """Starts the server, which imports `preload`; does not wait for that.

    SIGTERM to the process group passes it by: the ranks are told by whoever started them, and a server that ended would
    look to them like the end of their launcher. Ranks have to unblock it (`launch.on_host.ranks`).
    """
    multiprocessing.set_forkserver_preload(list(preload))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
