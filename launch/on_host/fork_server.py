"""The fork server of this process: it imports once what every rank needs, and ranks are forks of it.

Imports nothing heavy itself, so that a command can start the server first and do its own imports meanwhile.
"""

import os
import signal
from collections.abc import Sequence
from multiprocessing import forkserver
from typing import Any

from greedypipe.launch.process.launcher import count_gpus_without_driver
from greedypipe.workers.lifeline import start_fork_server

RANKS_NEED = ("torch", "torch.distributed", "torch._dynamo", "greedypipe.launch.on_host.ranks")
FORKSERVER_PRELOAD = [*RANKS_NEED, "sklearn.datasets"]
"""For many runs on the digits; one run is faster where the stage that reads them imports what that takes."""


def start(preload: Sequence[str]) -> None:
    """Starts the server, which imports `preload`; does not wait for that.

    STOP_SIGNALS to the process group pass it by: the ranks are told by whoever started them, and a server that ended would
    look to them like the end of their launcher. Ranks begin with these signals blocked.
    """
    # One thread per process unless the user says otherwise, as under torchrun; read when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    count_gpus_without_driver()
    start_fork_server(preload)


def stop() -> None:
    """Ends a server that nobody has a use for after all, also while it is still importing."""
    server: Any = forkserver._forkserver  # its process has no public name
    os.kill(server._forkserver_pid, signal.SIGKILL)
