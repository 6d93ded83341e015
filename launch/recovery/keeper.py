"""Keeps one rank of a run there: a child does its work, and is started again alone when it dies (`faults.policy=isolate`).

A launcher ends all ranks of a run as soon as one of them has ended (torchrun does). So a rank is this process, which does
nothing but wait, and dies only for good.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from multiprocessing import connection
from types import FrameType
from typing import NoReturn, Protocol

from greedypipe.launch.config.sections import FaultsConfig
from greedypipe.launch.recovery.exit_codes import FAILED, INTERRUPTED, REQUEUE, WRONG_CONFIGURATION
from greedypipe.launch.recovery.leaving import leave, say
from greedypipe.launch.recovery.life import FIRST_LIFE, Life, Pulse
from greedypipe.launch.recovery.stopping import hearing
from greedypipe.workers.errors import with_traceback
from greedypipe.workers.lifeline import STOP_SIGNALS, deaf, end_with

FOR_GOOD = {0, FAILED, WRONG_CONFIGURATION, REQUEUE, INTERRUPTED}
"""Exit codes of a run that has ended; after any other one, or a signal, the child alone is started again."""
LOOKS = 4
"""A heartbeat timeout is this many looks without a beat. Counting looks, not seconds, keeps a keeper that was stopped itself
from blaming its child."""


class Voice(Protocol):
    """What a keeper has to say to the other processes of its run. It holds no connection to them while it forks."""

    def begin(self) -> None:
        """Makes its process known, so that the others notice when it is gone."""

    def end(self) -> None:
        """It may be gone from here on."""

    def give_up(self, reason: str) -> None:
        """Ends the run: its child will not come back."""


def run_kept(name: str, config: FaultsConfig, work: Callable[[Life], int], voice: Voice) -> int:
    """Does a rank's work as `faults.policy` says: here, or in a child that is started again when it dies.

    Call it before this process has started a thread or touched a GPU: children are forks of it, so that they need not
    import everything anew.

    Args:
        name: The rank's in words, e.g. "stage 1".
        work: Does the rank's work in one life of it; returns the exit code. In a child it begins with STOP_SIGNALS blocked,
            until it hears them (`launch.recovery.stopping.RankSignals`).
    """
    return Keeper(name, config, work, voice).keep() if config.policy == "isolate" else work(FIRST_LIFE)


class Keeper:
    """Starts children one after the other, kills one that gives no sign of life, and forwards STOP_SIGNALS to them.

    Children end with it, however it ends. Only the keeper can end a child that stands still: the other processes may be on
    other hosts.
    """

    def __init__(self, name: str, config: FaultsConfig, work: Callable[[Life], int], voice: Voice) -> None:
        self._name = name
        self._work = work
        self._max_restarts = config.max_restarts
        self._heartbeat_timeout_s = config.heartbeat_timeout_s
        self._voice = voice
        self._child = 0
        self._newest_signal = 0

    def keep(self) -> int:
        """Blocks until a child has ended for good; returns its exit code."""
        self._voice.begin()
        with hearing(self._forward):
            code = self._keep()
        if code == REQUEUE:
            self._voice.end()
        return code

    def _keep(self) -> int:
        for incarnation in range(self._max_restarts + 1):
            code = self._run_child(incarnation)
            if code in FOR_GOOD:
                return code
            if incarnation < self._max_restarts:
                with contextlib.suppress(OSError):
                    say(f"greedypipe: {self._name} {ending(code)}: started again alone")
        self._voice.give_up(f"died {self._max_restarts + 1} times (faults.max_restarts={self._max_restarts})")
        return FAILED

    def _run_child(self, incarnation: int) -> int:
        pulse = Pulse()
        lifeline, ours = os.pipe()
        # Until the child hears signals itself they wait for it: none may be lost, or kill it so that it is started again.
        with deaf():
            pid = os.fork()
            if pid == 0:
                os.close(ours)
                end_with(lifeline)
                self._be_child(Life(incarnation, pulse.beat))
            self._child = pid
            if self._newest_signal:
                self._forward(self._newest_signal)
        os.close(lifeline)
        self._watch(pulse)
        pulse.close()
        _, status = os.waitpid(pid, 0)
        self._child = 0
        os.close(ours)
        return os.waitstatus_to_exitcode(status)

    def _watch(self, pulse: Pulse) -> None:
        """Blocks until the child has ended. One that has not begun to beat yet has all the time it needs."""
        child, has_begun, quiet = os.pidfd_open(self._child), False, 0
        while child not in (ready := connection.wait([child, pulse.fileno()], self._heartbeat_timeout_s / LOOKS)):
            pulse.clear()
            has_begun, quiet = has_begun or bool(ready), 0 if ready else quiet + 1
            if has_begun and quiet == LOOKS:
                with contextlib.suppress(OSError):
                    say(f"greedypipe: {self._name} has given no sign of life for {self._heartbeat_timeout_s:g} s: killed")
                os.kill(self._child, signal.SIGKILL)
        os.close(child)

    def _be_child(self, life: Life) -> NoReturn:
        # A group of its own, so that a signal to the keeper's group does not come twice.
        os.setpgid(0, 0)
        for number in STOP_SIGNALS:
            if signal.getsignal(number) == self._forward:
                signal.signal(number, signal.SIG_DFL)
        code = FAILED
        try:
            code = self._work(life)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else FAILED
        except BaseException as error:
            say(f"greedypipe: {self._name} failed: {with_traceback(error)}")
        finally:
            leave(code)

    def _forward(self, number: int, frame: FrameType | None = None) -> None:
        self._newest_signal = number
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, number)


def ending(code: int) -> str:
    """How a process has ended, in words; `code` is minus the signal of one that was killed."""
    return f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
