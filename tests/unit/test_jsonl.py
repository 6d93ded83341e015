"""Records in files, one per line."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from greedypipe.workers.jsonl import LinesFile, line_of, read_lines, salvage_lines, write_lines
from greedypipe.workers.telemetry.results import EVALUATIONS, METRICS, Evaluation, PassRecord, StepRecord

STEP = StepRecord(time_s=1.5, block=1, step=20, loss=0.25, lr=0.1)
PASS = PassRecord(evaluation=1, samples=359, accuracy={0: 0.5, 1: 0.75})


def test_records_come_back_as_they_were_with_whole_numbers_as_keys(tmp_path: Path) -> None:
    path = tmp_path / "new" / "stage0.jsonl"
    write_lines(path, [STEP, PASS, STEP])
    assert read_lines(path, METRICS) == [STEP, PASS, STEP]
    assert json.loads(path.read_text().splitlines()[1])["accuracy"] == {"0": 0.5, "1": 0.75}


@pytest.mark.parametrize("torn", ['{"block": 1, "st', "1", ""])
def test_half_a_line_is_left_out_wherever_it_stands(torn: str, tmp_path: Path) -> None:
    path = tmp_path / "stage0.jsonl"
    path.write_text(line_of(STEP) + torn + "\n" + line_of(PASS) + torn)
    assert read_lines(path, METRICS) == [STEP, PASS]


def test_a_file_that_is_not_there_has_no_records(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none.jsonl", EVALUATIONS) == []


def test_a_whole_line_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "evaluations.jsonl").write_text(line_of(STEP))
    with pytest.raises(ValueError, match="epoch"):
        read_lines(tmp_path / "evaluations.jsonl", EVALUATIONS)


def test_keys_of_another_version_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "stage0.jsonl"
    path.write_text('{"block": 1, "step": 20, "unheard_of": 3}\n')
    assert read_lines(path, METRICS) == [StepRecord(block=1, step=20)]


def test_a_number_that_is_none_becomes_null() -> None:
    assert json.loads(line_of(Evaluation(1, [math.nan], math.inf))) == {
        "epoch": 1,
        "blocks": [None],
        "ensemble": None,
        "losses": [],
    }


def test_lines_that_hold_something_else_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "stage0.jsonl"
    path.write_bytes(b"\xff\x00\n" + line_of(STEP).encode() + b'{"epoch": 1}\n' + line_of(PASS).encode())
    assert salvage_lines(path, METRICS) == [STEP, PASS]


def test_appending_goes_on_after_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "stage0.jsonl"
    for _ in range(2):
        file = LinesFile(path)
        file.append(STEP)
        file.close()
        with path.open("a") as torn:
            torn.write('{"block": 1, "st')
    assert read_lines(path, METRICS) == [STEP, STEP]


class FullDisk(io.RawIOBase):
    """Takes so many bytes and refuses the next one, until there is room again."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.content = b""

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = bytes(data)[: self.room]
        self.content += taken
        self.room -= len(taken)
        return len(taken)


def test_a_full_disk_costs_records_which_are_counted_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, disk = LinesFile(tmp_path / "stage0.jsonl"), FullDisk(len(line_of(STEP)) + 10)
    lines._file = disk
    for _ in range(4):
        lines.append(STEP)
    disk.room = 10**6
    lines.append(PASS)
    assert lines.lost == 3
    (tmp_path / "stage0.jsonl").write_bytes(disk.content)
    assert read_lines(tmp_path / "stage0.jsonl", METRICS) == [STEP, PASS]
    assert capsys.readouterr().err.splitlines() == [
        f"greedypipe: {tmp_path / 'stage0.jsonl'} cannot be written: No space left on device; training goes on without its "
        "records"
    ]


def test_a_file_that_cannot_be_made_costs_records_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics").write_text("in the way")
    lines = LinesFile(tmp_path / "metrics" / "stage0.jsonl")
    lines.append(STEP)
    lines.close()
    assert lines.lost == 1 and len(capsys.readouterr().err.splitlines()) == 1
