"""Records in files, one per line."""

import json
import math
from pathlib import Path

import pytest

from greedypipe.workers.jsonl import line_of, read_lines, write_lines
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
