"""Where a run reports to its user: a terminal with one table that is redrawn, or anything else, line by line."""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live

from greedypipe.launch.reporting.console import standard_output
from greedypipe.launch.reporting.tables import live_table, progress_line
from greedypipe.workers.errors import in_one_line
from greedypipe.workers.telemetry.records import StageRow

Rows = Sequence[StageRow | None]
"""What every process is doing, by rank; None for one that has not started."""


class Screen(Protocol):
    """What the first process of a run shows its user."""

    def print(self, what: RenderableType) -> None:
        """Prints something that stays."""

    def show(self, rows: Rows, labels: list[str], total_steps: int) -> None:
        """Updates what every process is doing; called twice a second."""

    def release(self) -> None:
        """Stops redrawing, so that others may print; idempotent."""


class Terminal:
    """One table that is redrawn, below the lines that stay."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def print(self, what: RenderableType) -> None:
        for part in what.splitlines() if isinstance(what, str) else [what]:
            # Lines wrap between words, but a path stays one word for whoever copies it.
            is_path = isinstance(part, str) and part.startswith("/")
            self._console.print(part, soft_wrap=is_path)

    def show(self, rows: Rows, labels: list[str], total_steps: int) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(live_table(rows, labels, total_steps), refresh=True)

    def release(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None


class Lines:
    """A line from time to time, for a file or a pipe.

    Args:
        interval_s: Seconds without a line after which one reports progress.
    """

    def __init__(self, console: Console, interval_s: float) -> None:
        self._console = console
        self._interval_s = interval_s
        self._spoken = time.monotonic()

    def print(self, what: RenderableType) -> None:
        self._spoken = time.monotonic()
        self._console.print(what, soft_wrap=isinstance(what, str))

    def show(self, rows: Rows, labels: list[str], total_steps: int) -> None:
        if time.monotonic() - self._spoken > self._interval_s and (line := progress_line(rows, total_steps)):
            self.print(line)

    def release(self) -> None:
        """No-op: nothing is redrawn."""


class HarmlessScreen:
    """Another screen that must not end a training run, when nobody reads it or its disk is full: its first error is its last
    call."""

    def __init__(self, screen: Screen) -> None:
        self._screen: Screen | None = screen

    def print(self, what: RenderableType) -> None:
        self._attempt(lambda screen: screen.print(what))

    def show(self, rows: Rows, labels: list[str], total_steps: int) -> None:
        self._attempt(lambda screen: screen.show(rows, labels, total_steps))

    def release(self) -> None:
        self._attempt(lambda screen: screen.release())

    def _attempt(self, call: Callable[[Screen], None]) -> None:
        if self._screen is None:
            return
        try:
            call(self._screen)
        except Exception as error:
            self._screen = None
            with contextlib.suppress(OSError):  # of the same disk
                text = f"greedypipe: the display has failed, training goes on: {in_one_line(error)}"
                print(text, file=sys.stderr, flush=True)


def make_screen(interval_s: float) -> Screen:
    """The screen for standard output; 120 columns wide if that is not a terminal."""
    console = standard_output(120)
    return HarmlessScreen(Terminal(console) if console.is_terminal else Lines(console, interval_s))
