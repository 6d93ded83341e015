"""Tables that fit the terminal: where it is narrow they have fewer columns, and no number is ever cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from greedypipe.workers.output import shown

FRAME, PER_COLUMN = 1, 3
"""What the lines and spaces of a table take besides its cells."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        rank: How easily one does without it: columns of the highest rank are left out first, those of rank 0 never.
        width: Of a column of figures, its least width: they are never cut. Of words, their width where there is room,
            so that a table that is redrawn keeps its shape: longer ones are cut; 0: they are wrapped.
        shortest: Least width of a column of words; 0: a column of figures.
        idle: What a row without anything to tell has in it: a column with nothing else is left out. Empty: never.
    """

    name: str
    justify: Literal["left", "right"] = "right"
    rank: int = 0
    width: int = 0
    shortest: int = 0
    idle: str = ""


class FittingTable:
    """Rows of text that become a table of the console's width when they are printed.

    Args:
        title: Stands above it, if there is one.
    """

    def __init__(self, columns: Sequence[Column], title: str = "") -> None:
        self._columns = columns
        self._title = title
        self._rows: list[Sequence[str]] = []

    def add_row(self, *cells: str) -> None:
        """Adds a row; missing cells at its end stay empty."""
        self._rows.append([*map(shown, cells), *[""] * (len(self._columns) - len(cells))])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(options.max_width)
        table = Table(title=self._title or None, title_justify="left", title_style="bold")
        for index, width in widths.items():
            column = self._columns[index]
            wraps = column.shortest > 0 and not column.width
            table.add_column(column.name, justify=column.justify, no_wrap=not wraps, overflow="ellipsis", width=width)
        for row in self._rows:
            # As text: what stands in brackets is no markup.
            table.add_row(*(Text(row[index]) for index in widths))
        yield table

    def _widths(self, room: int) -> dict[int, int]:
        """The columns that there is room for, by index, and how wide each is."""
        kept = [index for index, column in enumerate(self._columns) if not column.idle or self._tells(index)]
        while self._spare(kept, room) < 0 and (worst := max(self._columns[index].rank for index in kept)):
            kept = [index for index in kept if self._columns[index].rank < worst]
        spare, widths = max(0, self._spare(kept, room)), {}
        for index in kept:
            more = min(spare, self._natural(index) - self._least(index))
            widths[index], spare = self._least(index) + more, spare - more
        return widths

    def _tells(self, index: int) -> bool:
        return any(row[index] not in ("", self._columns[index].idle) for row in self._rows)

    def _spare(self, kept: Sequence[int], room: int) -> int:
        return room - FRAME - sum(PER_COLUMN + self._least(index) for index in kept)

    def _least(self, index: int) -> int:
        column = self._columns[index]
        return max(column.shortest, cell_len(column.name)) if column.shortest else self._natural(index)

    def _natural(self, index: int) -> int:
        column = self._columns[index]
        content = 0 if column.shortest and column.width else max((cell_len(row[index]) for row in self._rows), default=0)
        return max(column.width, column.shortest, cell_len(column.name), content)
