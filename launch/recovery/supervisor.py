"""Failing well: heartbeats, the first cause of a failure, and the end of every process of a run."""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.sections import FaultsConfig
from greedypipe.launch.recovery.exit_codes import ALONE, FAILED, INTERRUPTED, REQUEUE, WRONG_CONFIGURATION
from greedypipe.launch.recovery.identity import Identity, kill_member
from greedypipe.launch.recovery.leaving import leave, say, within
from greedypipe.launch.recovery.pulses import KeptRanks, Pulses
from greedypipe.launch.recovery.standstill import culprit_of, described, write_stacks
from greedypipe.launch.recovery.stopping import RankSignals, at_once, before_training
from greedypipe.workers.block_files import EndNotSaved
from greedypipe.workers.data.image_files import DamagedImage
from greedypipe.workers.errors import in_one_line, tell_torchrun, with_traceback
from greedypipe.workers.placement import Seat
from greedypipe.workers.stage import InheritedFailure
from greedypipe.workers.telemetry.activity import OWN_WORK, Activity
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.machine import is_alive
from greedypipe.workers.telemetry.records import Cause, StageRow, Victim
from greedypipe.workers.telemetry.results import Failure, RunEnd
from greedypipe.workers.telemetry.status import StageStatus
from greedypipe.workers.telemetry.summary_file import write_summary
from greedypipe.workers.telemetry.topics import FOLDER, RUN, STATUS, STOP

HEARTBEAT_S = 0.25
GRACE_S = 2.0
"""How long a stage that suffers from another one's failure looks for the cause before it reports its own error."""


ECHOES = (ConnectionError, TimeoutError, InheritedFailure)
"""What a stage suffers when another one fails: none of these is reported before a look for the cause."""
ENDS = {"interrupted": (INTERRUPTED, RunEnd.INTERRUPTED), "stopped": (REQUEUE, RunEnd.STOPPED)}
"""Exit code and end of the run by kind of cause; of all other kinds, FAILED."""


class Supervisor:
    """Watches over one stage and, through the board, over all others.

    A thread posts the stage's status every HEARTBEAT_S and ends the process when a cause of failure is on the board,
    when another stage's heartbeat stops, when this stage computes for too long, or when the parent process is gone.
    Whoever finds a cause first writes it to the board and prints it; all others leave without a word. Leaving is
    os._exit: threads may sit in a wait of gloo that nobody will ever end. Whatever ends that thread ends the process.

    With `faults.policy=isolate` a stage that fails or hangs by itself leaves alone, as long as it may be started again, and
    no cause is posted.

    A signal to any process of the run tells all of them to save and stop (`told_to_stop`); see launch.recovery.stopping.

    Args:
        signals: Of this process; taken over.
        labels: Of the seats of all processes, by rank.
        stop_console: Called before anything is printed; gives the terminal back.
        beat: Called every HEARTBEAT_S; shows the keeper of this process that it goes on.
        folder: The run's: for the cause in summary.json, and for the stacks of a stage that hangs.
    """

    def __init__(
        self,
        board: Board,
        status: StageStatus,
        config: FaultsConfig,
        signals: RankSignals,
        *,
        labels: Sequence[str],
        stop_console: Callable[[], None],
        beat: Callable[[], None],
        folder: Path,
    ) -> None:
        self._board = board
        self._status = status
        self._config = config
        self._signals = signals
        self._labels = labels
        self._stop_console = stop_console
        self._show_life = beat
        self._folder = folder
        self._pulses = Pulses(board.num_processes, config.heartbeat_timeout_s)
        self._kept_ranks = KeptRanks(board, status.host) if config.policy == "isolate" else None
        self._rows: Sequence[StageRow | None] = [None] * board.num_processes
        self._failing = threading.Lock()
        self._closing = threading.Event()
        self._stopping = threading.Event()
        self._has_begun = status.incarnation > 0
        self._has_told = False
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._run = self._board.agree(RUN, secrets.token_hex(16))
        self._identity = Identity(self._run, self._status.seat.rank, self._status.incarnation)
        # At once, not with the first heartbeat: a stage that dies or stands still before that must be known by its process.
        self._show_life()
        self._board.post(STATUS, self._status.seat.rank, self._status.row())
        self._thread.start()
        self._signals.be_supervised()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._fail(error)
        self._status.now(Activity.DONE)
        self._closing.set()
        self._thread.join()
        self._board.post(STATUS, self._status.seat.rank, self._status.row())
        self._identity.close()

    def told_to_stop(self) -> bool:
        """Whether the run is to save itself and end. Stage 0 asks when it could: from then on there is something to save.
        Does not block."""
        self._has_begun = True
        return self._stopping.is_set() or self._signals.request.is_made

    def _spread_stop(self) -> None:
        """Tells the others, or learns from them."""
        if self._signals.request.is_made and not self._has_told:
            self._board.post(STOP, self._status.seat.rank, True)
            self._has_told = True
        if not self._stopping.is_set() and (self._has_told or self._board.posted(STOP)):
            self._stopping.set()

    def _fail(self, error: BaseException) -> NoReturn:
        # From here on the watching thread must not leave first.
        self._failing.acquire()
        if isinstance(error, KeyboardInterrupt):
            self._leave_with(Cause("interrupted", "interrupted"))
        if isinstance(error, ConfigError):
            self._refuse(error)
        if isinstance(error, EndNotSaved):
            self._leave_with(Cause("raised", f"{self._status.seat.name}: {error}"))
        if isinstance(error, ECHOES) and (found := self._find_cause()):
            self._leave_with(found)
        message = f"{self._status.seat.name} failed: {self._reason(error)}"
        if not isinstance(error, ECHOES):
            self._leave_alone(message)
        self._leave_with(Cause("raised", message))

    def _reason(self, error: BaseException) -> str:
        """An error in one line, with its traceback in a file unless the disk hangs."""
        path = self._folder / "logs" / f"stage{self._status.seat.label}.traceback"
        lines = [in_one_line(error)]
        if isinstance(error, DamagedImage):
            return lines[0]
        within(lambda: lines.append(with_traceback(error, path)))
        return lines[-1]

    def _refuse(self, error: ConfigError) -> NoReturn:
        """Ends a run that may not begin. Its folder may be another run's: nothing is written there."""
        message = "\ngreedypipe: ".join(str(error).splitlines())
        is_first = True
        with contextlib.suppress(RuntimeError):
            is_first = self._board.post_cause(self._status.seat.rank, Cause("refused", message))
        self._leave(f"greedypipe: {message}" if is_first else "", WRONG_CONFIGURATION)

    def _find_cause(self) -> Cause | None:
        """What is behind an echo: somebody else's report, a process that is no more, or one that stands still."""
        rows, deadline = self._rows, time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):  # the store may be gone as well
                if cause := self._board.cause():
                    return cause
                if dead := self._find_dead():
                    return dead
            time.sleep(0.05)
        return culprit_of(rows, self._labels, self._status.seat.rank)

    def _find_dead(self) -> Cause | None:
        for row in self._board.read(STATUS):
            if row and row.activity != Activity.DONE and row.host == self._status.host and not is_alive(row.pid):
                # A process that raised has posted its cause before it ended: look once more.
                message = f"{described(row)} died without a word (killed, or out of memory) at batch_id {row.batch_id}"
                return self._board.cause() or Cause("died", message)
        return None

    def _watch(self) -> None:
        name, reason = self._status.seat.name, "ended"
        try:
            while not self._closing.wait(HEARTBEAT_S):
                self._beat()
        except RuntimeError as error:
            reason = f"lost the rendezvous store: {str(error).splitlines()[0]}"
        except BaseException as error:
            reason = f"cannot be supervised: {in_one_line(error)}"
        finally:
            if not self._closing.is_set() and self._failing.acquire(blocking=False):
                self._leave(f"greedypipe: {name} {reason}", FAILED)

    def _beat(self) -> None:
        self._show_life()
        row = self._status.row()
        self._board.post(STATUS, self._status.seat.rank, row)
        self._spread_stop()
        rows = self._board.read(STATUS)
        self._rows = rows
        if cause := self._board.cause() or self._urgent_stop() or self._find_loss(row) or self._early_stop():
            if self._failing.acquire(blocking=False):
                self._leave_with(cause)
        elif self._signals.is_launcher_gone() and self._failing.acquire(blocking=False):
            self._leave(f"greedypipe: {self._status.seat.name}: the launcher is gone", FAILED)

    def _urgent_stop(self) -> Cause | None:
        request = self._signals.request
        return at_once(request.signal) if request.is_urgent else None

    def _early_stop(self) -> Cause | None:
        """Where the run is to stop before training has begun, which rank 0 knows."""
        if self._has_begun or self._status.seat.rank or not self._stopping.is_set():
            return None
        return Cause("stopped", before_training(self._signals.request.signal))

    def _find_loss(self, row: StageRow) -> Cause | None:
        return self._own_hang(row) or self._others_hang() or self._lost_keeper()

    def _lost_keeper(self) -> Cause | None:
        keeper = self._kept_ranks.lost() if self._kept_ranks else None
        if keeper is None:
            return None
        message = f"{keeper.name}: its keeper (process {keeper.pid} on {keeper.host}) died without a word"
        return self._board.cause() or Cause("died", message)

    def _own_hang(self, row: StageRow) -> Cause | None:
        if row.activity not in OWN_WORK or row.for_s < self._longest(row.activity):
            return None
        stacks = self._folder / "logs" / f"stage{self._status.seat.label}.stacks"
        message = f"{described(row)} hangs: {row.doing} for {row.for_s:.0f} s after batch_id {row.batch_id}"
        if write_stacks(stacks):
            message += f"; its stacks are in {stacks}"
        self._leave_alone(message)
        return Cause("hung", message)

    def _longest(self, activity: Activity) -> float:
        # A disk is waited for as long as another stage is.
        return self._config.timeout_s if activity == Activity.SAVE else self._config.hang_timeout_s

    def _leave_alone(self, message: str) -> None:
        """Ends this process where it comes back; returns where it does not."""
        if self._config.comes_back(self._status.incarnation):
            self._leave(f"greedypipe: {message}; it is started again alone", ALONE)

    def _others_hang(self) -> Cause | None:
        for row in self._pulses.silent(self._rows):
            message = (
                f"{described(row)} hangs: no sign of life for {self._config.heartbeat_timeout_s:g} s, "
                f"last seen {row.doing}, batch_id {row.batch_id}"
            )
            if self._config.comes_back(row.incarnation):
                # Whoever would start it again ends it, wherever it is: its keeper, or the Ray driver.
                continue
            return Cause("hung", message, kill=Victim(row.seat.rank, row.incarnation))
        return None

    def _leave_with(self, cause: Cause) -> NoReturn:
        code, end = ENDS.get(cause.kind, (FAILED, RunEnd.FAILED))
        # No error may keep this process: whoever comes here is the only one who can still end it.
        with contextlib.suppress(Exception):
            if not self._board.post_cause(self._status.seat.rank, cause):
                self._leave("", code)
        with contextlib.suppress(Exception):
            if cause.kill:
                kill_member(self._run, cause.kill.rank, cause.kill.incarnation)
        note = partial(_note_cause, self._folder, end, cause.message)
        self._leave(f"greedypipe: {cause.message}", code, note)

    def _leave(self, text: str, code: int, *last: Callable[[], object]) -> NoReturn:
        leave(code, self._stop_console, partial(say, text), *last)


def say_given_up(board: Board, seat: Seat, reason: str) -> None:
    """Ends a run for a process that is no more; says why, if nobody has said a cause before."""
    message = f"{seat.name} {reason}"
    if board.post_cause(seat.rank, Cause("died", message)):
        _note_cause(Path(board.share(FOLDER)), RunEnd.FAILED, message)
        with contextlib.suppress(OSError):
            say(f"greedypipe: {message}")


def _note_cause(folder: Path, status: RunEnd, message: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide the cause
        write_summary(folder, Failure(status, message))
        tell_torchrun(message)
