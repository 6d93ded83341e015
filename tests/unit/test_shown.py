"""Nothing that a run shows is obeyed: by a terminal, by rich, by a browser."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from greedypipe.launch.config.command_line import refuse
from greedypipe.launch.recovery.leaving import say
from greedypipe.launch.reporting.console import PlainConsole
from greedypipe.launch.reporting.page.page import page
from greedypipe.launch.reporting.page.record import read_run
from greedypipe.launch.reporting.tables import live_table
from greedypipe.launch.status import status_table
from greedypipe.workers.output import shown
from greedypipe.workers.telemetry.records import RunStatus
from greedypipe.workers.telemetry.summary_file import write_summary
from tests.records import make_report, make_row, make_summary

EVIL = "\x1b[2J\x1b]0;title\x07\x9b31m[red]:boom:[/red]\r\u202e<script>alert(1)</script>"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_characters_that_a_terminal_obeys_are_spelt_out_and_others_stay() -> None:
    assert shown("a\x1b[1m\x9b\rb\n\tc") == "a\\x1b[1m\\x9b\\rb\n\tc"
    assert shown("Größe \u65e5\u672c \U0001f600 \u05e9") == "Größe \u65e5\u672c \U0001f600 \u05e9"
    shown("\udc80").encode()


def test_tables_and_lines_show_what_they_are_given() -> None:
    console = PlainConsole(file=io.StringIO(), width=600, force_terminal=True, color_system=None)
    rows = [make_row(doing=EVIL, host=EVIL), None]
    console.print(live_table(rows, ["0", EVIL], 10))
    console.print(status_table(RunStatus(0.0, 10, ["0", EVIL], rows), EVIL, 1.0))
    console.print(EVIL)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert not OBEYED.search(re.sub("\x1b\\[[0-9;]*m", "", text.replace("\n", "")))
    assert text.count("[red]:boom:[/red]") >= 5 and text.count("\\x1b[2J") >= 5


def test_messages_on_standard_error_show_what_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    with pytest.raises(SystemExit):
        refuse(EVIL)
    text = capsys.readouterr().err
    assert not OBEYED.search(text.replace("\n", "")) and text.count("\\x1b") >= 4


def test_the_report_shows_what_it_is_given(tmp_path: Path) -> None:
    run = tmp_path / "<script>alert(2)<"
    (run / "metrics").mkdir(parents=True)
    (run / "metrics" / "stage0.jsonl").touch()
    evil = "<script>alert({})</script>".format
    hardware = {"cpu": evil(4), "gpus": [evil(5)]}
    stages = [make_report(label=evil(3))]
    write_summary(run, replace(make_summary(hardware=hardware, versions={evil(6): evil(7)}), stages=stages))
    config = {
        "model": {"name": evil(8), "width": evil(9)},
        "data": {"name": evil(10), "batch_size": evil(11)},
        "buffers": {"policy": evil(12)},
        "training": {"precision": evil(13), "epochs": 1, "seed": evil(14)},
        "partition": {"blocks": 1},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    html = page(read_run(run))
    assert "<script" not in html
    assert all(f"&lt;script&gt;alert({number})" in html for number in (2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 14))
