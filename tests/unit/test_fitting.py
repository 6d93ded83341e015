"""Tables at the widths of terminals: every row in one line, fewer columns where it is narrow, and no figure cut."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from greedypipe.launch.reporting.console import PlainConsole
from greedypipe.launch.reporting.fitting import Column, FittingTable
from greedypipe.launch.reporting.screen import Terminal
from greedypipe.launch.reporting.tables import end_table, live_table
from greedypipe.launch.status import status_table
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.records import RunStatus
from tests.records import make_report, make_row, make_summary

WIDTHS = (80, 100, 120)
STEPS = 1_152_000


def rendered(table: RenderableType, width: int, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    Console(file=file, width=width).print(table)
    file.seek(0)
    return file.read().splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split("[│┃|]", line)[1:-1]]


def large_rows() -> list[object]:
    first = make_row(
        blocks=[0, 1],
        step=1_151_999,
        loss={0: 12.3456, 1: 0.1},
        accuracy={0: 0.9876, 1: 1.0},
        samples_per_s=1_234_567.0,
        wait_input_fraction=1.0,
        wait_feedback_fraction=0.25,
        staleness_mean=123.4,
    )
    return [first, make_row(Activity.WAIT_ROOM, "stage 17", blocks=[2], step=7), None]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_table_has_a_row_per_block_and_cuts_nothing_but_words(width: int) -> None:
    lines = rendered(live_table(large_rows(), ["0", "1", "2"], STEPS), width)
    assert max(map(len, lines)) <= width
    head, body = cells(lines[1]), [cells(line) for line in lines[3:-1]]
    assert [row[:2] for row in body] == [["0", "0"], ["", "1"], ["1", "2"], ["2", ""]]
    assert [row[head.index("step")] for row in body] == ["1151999/1152000", "1151999/1152000", "7/1152000", ""]
    assert [row[head.index("loss")] for row in body] == ["12.346", "0.100", "", ""]
    assert not [cell for row in body for cell in row[:-1] if "…" in cell]
    assert head[-1] == "doing" and body[0][-1] == "computing" and body[2][-1].startswith("waiting for room")


def test_a_column_that_tells_nothing_in_any_row_is_left_out() -> None:
    columns = (Column("stage"), Column("wait back", idle="0%"), Column("busy"))
    for back, expected in (("0%", ["stage", "busy"]), ("3%", ["stage", "wait back", "busy"])):
        table = FittingTable(columns)
        table.add_row("0", "0%", "99%")
        table.add_row("1", back, "0%")
        table.add_row("2")
        assert cells(rendered(table, 80)[1]) == expected


def test_a_wider_terminal_has_more_columns() -> None:
    counts = [len(cells(rendered(live_table(large_rows(), ["0", "1", "2"], STEPS), width)[1])) for width in (*WIDTHS, 160)]
    assert counts == sorted(set(counts)) and counts[-1] == 12


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_at_the_end_and_that_of_status_fit(width: int) -> None:
    reports = [make_report(stage, peak_memory_bytes=123_456_000_000, dropped=12_345_678) for stage in range(12)]
    end = rendered(end_table(replace(make_summary(), stages=reports)), width)
    status = RunStatus(0.0, STEPS, ["0", "1", "2"], large_rows())  # type: ignore[arg-type]
    for lines in (end, rendered(status_table(status, "", 0.0), width)):
        assert max(map(len, lines)) <= width
        assert "…" not in "".join(lines)


def test_columns_are_left_out_by_their_rank_and_words_wrap() -> None:
    table = FittingTable([Column("kept"), Column("figure", rank=1), Column("words", "left", shortest=5)])
    table.add_row("1", "123456789", "one two three")
    assert cells(rendered(table, 60)[1]) == ["kept", "figure", "words"]
    narrow = rendered(table, 20)
    assert cells(narrow[1]) == ["kept", "words"] and [cells(line)[1] for line in narrow[3:5]] == ["one two", "three"]


def test_brackets_are_no_markup_and_a_plain_encoding_gets_plain_lines() -> None:
    table = FittingTable([Column("word", "left")])
    table.add_row("[red]ü[/red]")
    assert "[red]ü[/red]" in rendered(table, 40)[3]
    assert rendered(table, 40, "ascii")[3] == "| [red]\\xfc[/red] |"


def test_lines_on_a_terminal_wrap_between_words_and_paths_do_not() -> None:
    console = PlainConsole(file=io.StringIO(), width=30, force_terminal=True)
    path = "/a/rather/long/folder/of runs/and/a/name"
    Terminal(console).print(f"one two three four five six seven\n{path}")
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.strip() for line in lines] == ["one two three four five six", "seven", path]
