"""Keeps one rank of a run there: a child does its work, and is started again alone when it dies (`faults.policy=isolate`).

A launcher ends all ranks of a run as soon as one of them has ended (torchrun does). So a rank is this process, which does
nothing but wait, and dies only for good.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing import connection
from types import FrameType
from typing import NoReturn

from greedypipe.launch.config.sections import FaultsConfig
from greedypipe.launch.recovery.exit_codes import FAILED, INTERRUPTED, REQUEUE, WRONG_CONFIGURATION
from greedypipe.launch.recovery.life import FIRST_LIFE, Life, Pulse

PR_SET_PDEATHSIG = 1
FOR_GOOD = {0, FAILED, WRONG_CONFIGURATION, REQUEUE, INTERRUPTED}
"""Exit codes of a run that has ended; after any other one, or a signal, the child alone is started again."""
LOOKS = 4
"""A heartbeat timeout is this many looks without a beat. Counting looks, not seconds, keeps a keeper that was stopped itself
from blaming its child."""


def run_kept(name: str, config: FaultsConfig, work: Callable[[Life], int], give_up: Callable[[str], None]) -> int:
    """Does a rank's work as `faults.policy` says: here, or in a child that is started again when it dies.

    Call it before this process has started a thread or touched a GPU: children are forks of it, so that they need not
    import everything anew.

    Args:
        name: Of the rank in words, e.g. "stage 1".
        work: Does it in one life of the rank; returns the exit code.
        give_up: Is told why, when a child has died too often; ends the run.
    """
    return Keeper(name, config, work, give_up).keep() if config.policy == "isolate" else work(FIRST_LIFE)


class Keeper:
    """Starts children one after the other, kills one that gives no sign of life, and forwards SIGTERM and SIGINT to it.

    A child that stands still can be ended by nobody but its keeper: the other processes may be on other hosts.
    """

    def __init__(self, name: str, config: FaultsConfig, work: Callable[[Life], int], give_up: Callable[[str], None]) -> None:
        self._name = name
        self._work = work
        self._max_restarts = config.max_restarts
        self._heartbeat_timeout_s = config.heartbeat_timeout_s
        self._give_up = give_up
        self._child = 0

    def keep(self) -> int:
        """Blocks until a child has ended for good; returns its exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hand_on)
        for incarnation in range(self._max_restarts + 1):
            code = self._run_child(incarnation)
            if code in FOR_GOOD:
                return code
            if incarnation < self._max_restarts:
                print(f"greedypipe: {self._name} {ending(code)}: started again alone", file=sys.stderr, flush=True)
        self._give_up(f"died {self._max_restarts + 1} times (faults.max_restarts={self._max_restarts})")
        return FAILED

    def _run_child(self, incarnation: int) -> int:
        keeper, pulse = os.getpid(), Pulse()
        self._child = os.fork()
        if self._child == 0:
            self._be_child(Life(incarnation, pulse.beat), keeper)
        self._watch(pulse)
        pulse.close()
        _, status = os.waitpid(self._child, 0)
        return os.waitstatus_to_exitcode(status)

    def _watch(self, pulse: Pulse) -> None:
        """Blocks until the child has ended. One that has not begun to beat yet has all the time it needs."""
        child, has_begun, quiet = os.pidfd_open(self._child), False, 0
        while child not in (ready := connection.wait([child, pulse.fileno()], self._heartbeat_timeout_s / LOOKS)):
            pulse.clear()
            has_begun, quiet = has_begun or bool(ready), 0 if ready else quiet + 1
            if has_begun and quiet == LOOKS:
                text = f"greedypipe: {self._name} has given no sign of life for {self._heartbeat_timeout_s:g} s: killed"
                print(text, file=sys.stderr, flush=True)
                os.kill(self._child, signal.SIGKILL)
        os.close(child)

    def _be_child(self, life: Life, keeper: int) -> NoReturn:
        # The keeper may be killed; and a group of its own, so that a signal to the keeper's group does not come twice.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = FAILED
        try:
            if os.getppid() == keeper:
                code = self._work(life)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else FAILED
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if self._child:
            os.kill(self._child, number)


def ending(code: int) -> str:
    """How a process has ended, in words; `code` is minus the signal of one that was killed."""
    return f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
