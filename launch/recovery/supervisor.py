"""Failing well: heartbeats, the first cause of a failure, and the end of every process of a run."""

import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.sections import FaultsConfig
from greedypipe.launch.recovery.exit_codes import ALONE, FAILED, INTERRUPTED, WRONG_CONFIGURATION
from greedypipe.launch.recovery.pulses import Pulses
from greedypipe.workers.block_files import EndNotSaved
from greedypipe.workers.placement import Seat
from greedypipe.workers.stage import InheritedFailure
from greedypipe.workers.telemetry.activity import OWN_WORK, Activity
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.diagnosis import culprit
from greedypipe.workers.telemetry.machine import is_alive, kill
from greedypipe.workers.telemetry.phrases import range_of_blocks
from greedypipe.workers.telemetry.records import Cause, StageRow, Victim
from greedypipe.workers.telemetry.results import Failure, RunEnd
from greedypipe.workers.telemetry.status import StageStatus
from greedypipe.workers.telemetry.summary_file import write_summary
from greedypipe.workers.telemetry.topics import FOLDER, STATUS, STOP

HEARTBEAT_S = 0.25
GRACE_S = 2.0
"""How long a stage that only suffers from another one's failure looks for the cause before it reports its own."""


class Terminated(BaseException):
    """SIGTERM has arrived twice: somebody outside ends the run at once."""


ECHOES = (ConnectionError, TimeoutError, InheritedFailure, Terminated)
"""What a stage suffers when another one fails: none of these is reported before a look for the cause."""


class Supervisor:
    """Watches over one stage and, through the board, over all others.

    A thread posts the stage's status every HEARTBEAT_S and ends the process when a cause of failure is on the board,
    when another stage's heartbeat stops, when this stage computes for too long, or when the parent process is gone.
    Whoever finds a cause first writes it to the board and prints it; all others leave without a word. Leaving is
    os._exit: threads may sit in a wait of gloo that nobody will ever end.

    With `faults.policy=isolate` a stage that fails or hangs by itself leaves alone, as long as it may be started again, and
    no cause is posted.

    SIGTERM to any process of the run tells all of them to save and stop (`told_to_stop`); a second one ends it at once.

    Args:
        stop_console: Called before anything is printed; gives the terminal back.
        folder: The run's: for the cause in summary.json, and for the stacks of a stage that hangs.
    """

    def __init__(
        self, board: Board, status: StageStatus, config: FaultsConfig, *, stop_console: Callable[[], None], folder: Path
    ) -> None:
        self._board = board
        self._status = status
        self._config = config
        self._stop_console = stop_console
        self._folder = folder
        self._parent = os.getppid()
        self._pulses = Pulses(board.num_processes, config.heartbeat_timeout_s)
        self._failing = threading.Lock()
        self._closing = threading.Event()
        self._stopping = threading.Event()
        self._has_told = False
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._terminate)
        # At once, not with the first heartbeat: a stage that dies before that must be known by its process.
        self._board.post(STATUS, self._status.seat.rank, self._status.row())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._fail(error)
        self._status.now(Activity.DONE)
        self._closing.set()
        self._thread.join()
        self._board.post(STATUS, self._status.seat.rank, self._status.row())

    def told_to_stop(self) -> bool:
        """Whether the run is to save itself and end. Does not block."""
        return self._stopping.is_set()

    def _terminate(self, signal_number: int, frame: FrameType | None) -> None:
        if self._stopping.is_set():
            raise Terminated
        self._stopping.set()

    def _spread_stop(self) -> None:
        """Tells the others, or learns from them."""
        if not self._stopping.is_set():
            if self._board.posted(STOP):
                self._stopping.set()
        elif not self._has_told:
            self._board.post(STOP, self._status.seat.rank, True)
            self._has_told = True

    def _fail(self, error: BaseException) -> NoReturn:
        # From here on being told to end changes nothing, and the watching thread must not leave first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._failing.acquire()
        text = "".join(traceback.format_exception(error))
        if isinstance(error, KeyboardInterrupt):
            self._leave_with(Cause("interrupted", "interrupted"), INTERRUPTED)
        if isinstance(error, ConfigError):
            self._refuse(error)
        if isinstance(error, EndNotSaved):
            self._leave_with(Cause("raised", f"{self._status.seat.name}: {error}"))
        if isinstance(error, ECHOES) and (found := self._find_cause() or self._find_hanging(error)):
            self._leave_with(found)
        message = f"{self._status.seat.name} failed: {type(error).__name__}: {error}"
        if isinstance(error, Terminated):
            message = "terminated from outside (SIGTERM)"
        elif not isinstance(error, ECHOES):
            self._leave_alone(message, text)
        self._leave_with(Cause("raised", message, trace=text))

    def _refuse(self, error: ConfigError) -> NoReturn:
        """Ends a run that may not begin. Its folder may be another run's: nothing is written there."""
        message = "\ngreedypipe: ".join(str(error).splitlines())
        is_first = True
        with contextlib.suppress(RuntimeError):
            is_first = self._board.post_cause(self._status.seat.rank, Cause("refused", message))
        self._leave(f"greedypipe: {message}" if is_first else "", WRONG_CONFIGURATION)

    def _find_hanging(self, error: BaseException) -> Cause | None:
        """What is behind a wait that this stage has given up."""
        with contextlib.suppress(RuntimeError):
            rows = self._board.read(STATUS)
            row = culprit(rows, self._status.seat.rank) if isinstance(error, TimeoutError | ConnectionError) else None
            # A connection can break at once: then nobody has been at anything for long.
            if row and row.for_s > self._config.timeout_s / 2:
                return Cause("hung", _hangs(row))
        return None

    def _find_cause(self) -> Cause | None:
        """What is behind a broken connection: somebody else's report, or a process that is no more."""
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):  # the store may be gone as well
                if cause := self._board.cause():
                    return cause
                if dead := self._find_dead():
                    return dead
            time.sleep(0.05)
        return None

    def _find_dead(self) -> Cause | None:
        for row in self._board.read(STATUS):
            if row and row.activity != Activity.DONE and row.host == self._status.host and not is_alive(row.pid):
                # A process that raised has posted its cause before it ended: look once more.
                message = f"{_name(row)} died without a word (killed, or out of memory) at batch_id {row.batch_id}"
                return self._board.cause() or Cause("died", message)
        return None

    def _watch(self) -> None:
        try:
            while not self._closing.wait(HEARTBEAT_S):
                self._beat()
        except RuntimeError as error:
            if not self._closing.is_set() and self._failing.acquire(blocking=False):
                reason = str(error).splitlines()[0]
                self._leave(f"greedypipe: {self._status.seat.name} lost the rendezvous store: {reason}", FAILED)

    def _beat(self) -> None:
        row = self._status.row()
        self._board.post(STATUS, self._status.seat.rank, row)
        self._spread_stop()
        if cause := self._board.cause() or self._own_hang(row) or self._others_hang():
            if self._failing.acquire(blocking=False):
                self._leave_with(cause)
        elif os.getppid() != self._parent and self._failing.acquire(blocking=False):
            self._leave(f"greedypipe: {self._status.seat.name}: the launcher is gone", FAILED)

    def _own_hang(self, row: StageRow) -> Cause | None:
        if row.activity not in OWN_WORK or row.for_s < self._longest(row.activity):
            return None
        stacks = self._folder / "logs" / f"stage{self._status.seat.label}.stacks"
        with contextlib.suppress(OSError):  # a full disk
            stacks.parent.mkdir(exist_ok=True)
            with stacks.open("w") as file:
                faulthandler.dump_traceback(file)
        message = f"{_hangs(row)}; its stacks are in {stacks}"
        self._leave_alone(message)
        return Cause("hung", message)

    def _longest(self, activity: Activity) -> float:
        # A disk is waited for as long as another stage is.
        return self._config.timeout_s if activity == Activity.SAVE else self._config.hang_timeout_s

    def _leave_alone(self, message: str, trace: str = "") -> None:
        """Ends this process where it comes back; returns where it does not."""
        if self._config.comes_back(self._status.incarnation):
            self._leave(f"{trace}greedypipe: {message}; it is started again alone", ALONE)

    def _others_hang(self) -> Cause | None:
        rows = self._board.read(STATUS)
        for row in self._pulses.silent(rows):
            message = (
                f"{_name(row)} hangs: no sign of life for {self._config.heartbeat_timeout_s:g} s, "
                f"last seen {row.doing}, batch_id {row.batch_id}"
            )
            if self._config.comes_back(row.incarnation):
                # On another host nobody here can reach it: who waits for it waits until its own deadline.
                if row.host == self._status.host:
                    kill(row.pid)
                continue
            return Cause("hung", message, kill=Victim(row.host, row.pid))
        return None

    def _leave_with(self, cause: Cause, code: int = FAILED) -> NoReturn:
        with contextlib.suppress(RuntimeError):
            if not self._board.post_cause(self._status.seat.rank, cause):
                self._leave("", code)
        if cause.kill and cause.kill.host == self._status.host:
            kill(cause.kill.pid)
        end = RunEnd.INTERRUPTED if code == INTERRUPTED else RunEnd.FAILED
        # The disk may be what hangs: it must neither hide the cause nor keep this process.
        note = threading.Thread(target=_note_cause, args=(self._folder, end, cause.message), daemon=True)
        note.start()
        note.join(GRACE_S)
        self._leave(f"{cause.trace}greedypipe: {cause.message}", code)

    def _leave(self, text: str, code: int) -> NoReturn:
        with contextlib.suppress(Exception):
            self._stop_console()
        if text:
            print(text, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def say_given_up(board: Board, seat: Seat, reason: str) -> None:
    """Ends a run for a process that is no more; says why, if nobody has said a cause before."""
    message = f"{seat.name} {reason}"
    if board.post_cause(seat.rank, Cause("died", message)):
        _note_cause(Path(board.share(FOLDER)), RunEnd.FAILED, message)
        print(f"greedypipe: {message}", file=sys.stderr, flush=True)


def _name(row: StageRow) -> str:
    return f"{row.name} ({range_of_blocks(row.blocks)}, process {row.pid} on {row.host})"


def _hangs(row: StageRow) -> str:
    return f"{_name(row)} hangs: {row.doing} for {row.for_s:.0f} s after batch_id {row.batch_id}"


def _note_cause(folder: Path, status: RunEnd, message: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide the cause
        write_summary(folder, Failure(status, message))
        _write_error_file(message)


def _write_error_file(message: str) -> None:
    """Tells torchrun's agent the cause, which it otherwise looks for in the first process that it saw ending."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        details = {"message": message, "extraInfo": {"py_callstack": message, "timestamp": str(int(time.time()))}}
        Path(path).write_text(json.dumps({"message": details}))
