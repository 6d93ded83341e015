"""Runs on this host what a program that is not the command line has settled.

Its order is a line of JSON on standard input, which stays open: the run ends with whoever holds the other end.
"""

import json
import sys

from greedypipe.launch.on_host import fork_server
from greedypipe.workers.lifeline import end_with
from greedypipe.workers.output import escape_what_cannot_be_encoded


def main() -> None:
    escape_what_cannot_be_encoded()
    order = json.loads(sys.stdin.readline())
    end_with(sys.stdin.fileno())
    fork_server.start(fork_server.RANKS_NEED)
    from greedypipe.launch.on_host.host_run import run_ordered

    sys.exit(run_ordered(**order))


if __name__ == "__main__":
    main()
