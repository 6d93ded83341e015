"""summary.json and status.json: the keys on disk, and reading them back."""

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest

from greedypipe.launch.reporting.status_file import STATUS, read_ending, read_status, write_status
from greedypipe.launch.reporting.summary import summarise
from greedypipe.workers.telemetry.results import (
    Accuracy,
    CheckpointCounts,
    Evaluation,
    Failure,
    Prediction,
    RunEnd,
    Summary,
)
from greedypipe.workers.telemetry.summary_file import SUMMARY, read_summary, write_summary
from tests.records import make_report, make_row, make_summary

PREDICTION = Prediction(("conv4",), (0.1, 0.2), (1, 1), 0.3, 400.0, 350.0)
COMPLETE = make_summary(2, accuracy=Accuracy([0.5, 0.75], 0.75, 0.8), evaluations=[Evaluation(1, [0.5, 0.75], 0.8)])


@pytest.mark.parametrize("predicted", [None, PREDICTION])
def test_a_summary_has_the_keys_of_its_record_and_a_prediction_only_where_there_is_one(
    predicted: Prediction | None, tmp_path: Path
) -> None:
    summary = make_summary(2, accuracy=None, predicted=predicted)
    write_summary(tmp_path, summary)
    keys = {field.name for field in fields(Summary)} - (set() if predicted else {"predicted"})
    found = json.loads((tmp_path / SUMMARY).read_text())
    assert set(found) == keys and found["accuracy"] is None
    assert read_summary(tmp_path) == summary


def test_a_complete_summary_comes_back_as_it_was(tmp_path: Path) -> None:
    write_summary(tmp_path, COMPLETE)
    assert read_summary(tmp_path) == COMPLETE


def test_a_failure_is_a_status_and_a_cause_and_nothing_else(tmp_path: Path) -> None:
    write_summary(tmp_path, Failure(RunEnd.FAILED, "stage 1 died"))
    assert json.loads((tmp_path / SUMMARY).read_text()) == {"status": "failed", "cause": "stage 1 died"}
    assert read_summary(tmp_path) == Failure(RunEnd.FAILED, "stage 1 died")


def test_a_file_that_is_no_summary_is_named(tmp_path: Path) -> None:
    assert read_summary(tmp_path) is None
    for content in ('{"status": "fin', '{"status": "finished"}'):
        (tmp_path / SUMMARY).write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"summary\.json") as caught:
            read_summary(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / STATUS).write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"status\.json: unix_s: Field required"):
        read_status(tmp_path)


def test_the_slowest_stage_is_the_bound_and_replicas_count_together() -> None:
    reports = [
        make_report(0, step_time_s=0.1, batches=10, samples=100, train_s=2.0),
        make_report(1, replica=0, step_time_s=0.2, batches=10, samples=50, train_s=2.5),
        make_report(1, replica=1, step_time_s=0.1, batches=10, samples=50, train_s=2.0),
    ]
    counts = CheckpointCounts(1, 0)
    found = summarise(reports, [], 3.0, is_finished=False, predicted=None, checkpoints=counts, began_at=4)
    assert (found.status, found.accuracy, found.began_at_batch_id) == (RunEnd.STOPPED, None, 4)
    assert (found.bound_samples_per_s, found.samples_per_s, found.efficiency) == (50.0, 40.0, 0.8)


def test_the_status_file_keeps_the_sentence_for_people_and_comes_back(tmp_path: Path) -> None:
    rows = [make_row(loss={0: 0.5}), None]
    write_status(tmp_path, rows, ["0", "1"], total_steps=46)
    found = json.loads((tmp_path / STATUS).read_text())
    assert found["stages"][0]["doing"] == "computing" and set(found) == {"unix_s", "total_steps", "labels", "stages"}
    status = read_status(tmp_path)
    assert (status.stages, status.labels, status.total_steps) == (rows, ["0", "1"], 46)


def test_a_run_has_ended_where_its_summary_is_newer_than_its_status(tmp_path: Path) -> None:
    write_status(tmp_path, [None], ["0"], 46)
    assert read_ending(tmp_path) == ""
    write_summary(tmp_path, Failure(RunEnd.INTERRUPTED, "interrupted"))
    assert read_ending(tmp_path) == "interrupted"
    later = (tmp_path / SUMMARY).stat().st_mtime + 1
    os.utime(tmp_path / STATUS, (later, later))
    assert read_ending(tmp_path) == "", "the run has gone on since"
