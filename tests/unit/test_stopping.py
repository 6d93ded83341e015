"""What the signals that end a run ask for."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from greedypipe.launch.recovery.exit_codes import FAILED, REQUEUE
from greedypipe.launch.recovery.leaving import LAST_WORDS_S
from greedypipe.launch.recovery.stopping import AGAIN_S, StopRequest, hearing
from greedypipe.workers.lifeline import STOP_SIGNALS, deaf


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_copies_of_the_first_signal_ask_for_nothing_and_a_later_one_for_the_end_at_once() -> None:
    clock = Clock()
    request = StopRequest(clock)
    assert not request.is_made
    for number in STOP_SIGNALS:
        clock.now += 0.1
        request.hear(number)
    assert request.is_made and not request.is_urgent
    clock.now = 0.1 + AGAIN_S
    request.hear(signal.SIGINT)
    assert request.is_urgent and request.signal == "SIGINT"


@pytest.mark.parametrize("number", sorted(STOP_SIGNALS))
def test_a_signal_is_heard_also_if_it_came_while_it_was_blocked(number: signal.Signals) -> None:
    heard: list[int] = []
    with deaf():
        # To this thread: others of the process have blocked nothing.
        signal.pthread_kill(threading.get_ident(), number)
        assert heard == []
        with hearing(lambda number, frame: heard.append(number)):
            time.sleep(0)
    assert heard == [number]


def test_what_nohup_has_a_run_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with hearing(lambda number, frame: pytest.fail("it was to be ignored")):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def run(code: str, **options: object) -> "subprocess.Popen[str]":
    imports = "import os, sys, time, threading\nfrom greedypipe.launch.recovery import leaving, stopping\n"
    return subprocess.Popen([sys.executable, "-c", imports + code], text=True, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    "block",
    [
        pytest.param("sys.stdout.write('x' * 1_000_000)", id="a pipe that nobody reads"),
        pytest.param("raise OSError", id="an error"),
    ],
)
def test_nothing_keeps_a_process_that_leaves(block: str) -> None:
    process = run(
        f"def block():\n    {block}\n"
        "threading.Thread(target=block, daemon=True).start()\n"
        f"time.sleep(0.2); print('leaves', file=sys.stderr, flush=True); leaving.leave({FAILED}, block)\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr and process.stdout
    assert "leaves\n" in iter(process.stderr.readline, "")
    assert process.wait(3 * LAST_WORDS_S + 2) == FAILED
    process.stdout.close()
    process.stderr.close()


def test_a_rank_without_a_supervisor_ends_when_it_is_told_to_also_while_it_waits_outside_python() -> None:
    process = run(
        "import ctypes\n"
        "with stopping.RankSignals(speaks=True):\n"
        "    print('waits', flush=True)\n"
        "    ctypes.CDLL(None).pause()\n"
        "    ctypes.CDLL(None).sleep(60)\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == REQUEUE
    assert errors == "greedypipe: told to stop (SIGUSR1) before training began: nothing to save\n"
