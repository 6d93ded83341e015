"""How long a helper process lives, and who hears the signals: the same for everything that a run starts for itself.

| process                                | works for                     | ends with it by                    |
|----------------------------------------|-------------------------------|------------------------------------|
| rank of `greedypipe train`             | the launcher                  | `end_with_parent`                  |
| child of a keeper                      | the keeper                    | `end_with`                         |
| launcher of `greedypipe.train`         | the calling process           | `end_with`                         |
| rank of torchrun, before it runs       | torchrun's agent              | `end_with_agent`                   |
| keeper under torchrun                  | torchrun's agent              | `end_with_agent`                   |
| loader process                         | its rank                      | `end_with_parent`                  |
| fork server, resource tracker (Python) | all that they were needed for | a pipe of Python's own, after them |

A lifeline is a pipe into which nobody writes and whose writing end only one process holds: the kernel closes it however that
process ends.
"""

import contextlib
import ctypes
import fcntl
import multiprocessing
import os
import select
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver, resource_tracker
from typing import Final

STOP_SIGNALS: Final = frozenset(
    {
        signal.SIGTERM,  # kill, systemd, Kubernetes, Slurm's scancel
        signal.SIGINT,  # Ctrl-C
        signal.SIGQUIT,  # Ctrl-\
        signal.SIGHUP,  # the terminal is closed
        signal.SIGUSR1,  # a warning before a time limit: Slurm's --signal, Grid Engine
        signal.SIGUSR2,  # the same in LSF and Grid Engine
        signal.SIGXCPU,  # a CPU time limit
    }
)
"""By these a terminal or a scheduler ends a run. Each of them asks it to save itself and stop (launch.recovery.stopping)."""
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Blocks STOP_SIGNALS in this thread, and for good in processes that are started meanwhile.

    A signal to the process group passes such a process by: the one that it works for decides when it ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_fork_server(preload: Sequence[str]) -> None:
    """Starts this process's fork server, deaf, which imports `preload`; returns at once, and does nothing if it runs."""
    multiprocessing.set_forkserver_preload(list(preload))
    with deaf():
        # To start the tracker, which the server would do, unblocks two of the signals.
        resource_tracker.ensure_running()
        with deaf():
            forkserver.ensure_running()


def end_with(lifeline: int) -> None:
    """Has the kernel kill this process when the last writing end of a pipe is closed; at once where none is left.

    The kernel, not a thread: so it also ends a process that is stopped, or busy outside Python.

    Args:
        lifeline: Descriptor of the reading end; kept open, and not to be shared with another process.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    look = select.poll()
    look.register(lifeline, select.POLLIN)
    if look.poll(0):
        os.kill(os.getpid(), signal.SIGKILL)


def end_with_agent() -> None:
    """Has the kernel kill this process when torchrun's agent, which has started it, ends; until `look_after_agent`.

    To be called before anything that takes long: an agent that is gone takes the run's store with it, and a rank that has
    never reached the store would wait for it to its deadline. No-op without torchrun, whose processes stay with their shell.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _at_parents_death(signal.SIGKILL)


def look_after_agent() -> None:
    """Ends what `end_with_agent` began: from here on the caller looks itself whether its parent is there."""
    _at_parents_death(0)


def _at_parents_death(number: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def end_with_parent() -> None:
    """`end_with` for a process that `multiprocessing` has started: its parent is whoever called `start`, not the server."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_with(parent.sentinel)
