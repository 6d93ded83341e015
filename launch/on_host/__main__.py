"""Runs on this host what a program that is not the command line has settled; its order comes as JSON on standard input."""

import ctypes
import json
import signal
import sys

from greedypipe.launch.on_host import fork_server
from greedypipe.workers.output import escape_what_cannot_be_encoded

PR_SET_PDEATHSIG = 1


def main() -> None:
    escape_what_cannot_be_encoded()
    # Whoever asked may be killed; the ranks end with this process.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    fork_server.start(fork_server.RANKS_NEED)
    from greedypipe.launch.on_host.host_run import run_ordered

    sys.exit(run_ordered(**json.load(sys.stdin)))


if __name__ == "__main__":
    main()
