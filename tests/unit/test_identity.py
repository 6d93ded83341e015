"""Who may be killed: a process that the kernel names as a rank of this run, whatever somebody has written down."""

import os
import signal
import subprocess
import sys
import uuid

from greedypipe.launch.recovery.identity import Identity, kill_member

RANK = """
import sys
from greedypipe.launch.recovery.identity import Identity
identity = Identity(sys.argv[1], 1, 0)
print("here", flush=True)
input()
"""


def rank_of(run: str) -> "subprocess.Popen[str]":
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", RANK, run], text=True, **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() == "here\n"
    return process


def test_a_rank_is_killed_by_its_name_even_when_it_is_stopped_and_by_no_other() -> None:
    run = uuid.uuid4().hex
    process = rank_of(run)
    os.kill(process.pid, signal.SIGSTOP)
    for other in (("another run", 1, 0), (run, 0, 0), (run, 1, 1)):
        assert not kill_member(*other)
    assert process.poll() is None
    assert kill_member(run, 1, 0)
    assert process.wait(10) == -signal.SIGKILL
    assert not kill_member(run, 1, 0), "the name is gone with the process"


def test_nobody_kills_itself_or_whoever_has_given_its_name_up() -> None:
    identity = Identity("own", 0, 0)
    assert not kill_member("own", 0, 0)
    identity.close()
    assert not kill_member("own", 0, 0)


def test_a_name_that_is_taken_or_impossible_is_no_error() -> None:
    taken = Identity("taken", 0, 0)
    for run in ("taken", "x" * 200):
        Identity(run, 0, 0).close()
    taken.close()
