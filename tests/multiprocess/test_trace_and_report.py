"""A traced run is the same run; its trace and its report show what happened."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from greedypipe.workers.telemetry.results import Prediction
from tests.multiprocess.harness import TINY, Outcome, run_pipeline
from tests.multiprocess.test_equivalence import assert_equals_reference

ROOT = Path(__file__).resolve().parents[2]
# Room for one batch: stages that cannot drift apart record their batches at the same time.
OVERRIDES = [
    *TINY,
    "partition.blocks=3",
    "buffers.capacity=1",
    "logging.interval_steps=4",
    "logging.trace_batches=6",
    "logging.trace_start=3",
]
RECORDED = set(range(3, 9))
BLOCKS = {0: {0}, 1: {1, 2}}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_pipeline(OVERRIDES, 2, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def spans(outcome: Outcome) -> list[dict[str, Any]]:
    return [event for event in json.loads((outcome.folder / "trace.json").read_text())["traceEvents"] if event["ph"] == "X"]


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch" / "report.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/")


def report_of(folder: Path) -> str:
    result = report(folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip() == str(folder / "report.html")
    return (folder / "report.html").read_text()


def test_a_traced_run_equals_the_sequential_reference(outcome: Outcome) -> None:
    assert_equals_reference(outcome, OVERRIDES)


def test_every_recorded_batch_has_a_forward_and_a_learn_span_of_every_block(spans: list[dict[str, Any]]) -> None:
    for stage, blocks in BLOCKS.items():
        for activity in ("forward", "learn"):
            of_stage = [span for span in spans if span["args"]["stage"] == stage and span["cat"] == activity]
            found = [(span["args"]["batch_id"], span["name"]) for span in of_stage]
            assert sorted(found) == sorted((batch, f"{activity} {block}") for batch in RECORDED for block in blocks)
    assert {span["args"]["batch_id"] for span in spans if span["cat"] == "send"} == RECORDED
    assert {span["cat"] for span in spans if span["args"]["stage"] == 0} <= {"data", "forward", "learn", "send", "wait_room"}
    assert {span["cat"] for span in spans if span["args"]["stage"] == 1} == {"wait_input", "forward", "learn"}


def test_spans_of_a_stage_do_not_overlap(spans: list[dict[str, Any]]) -> None:
    for stage in BLOCKS:
        ordered = sorted((span["ts"], span["ts"] + span["dur"]) for span in spans if span["args"]["stage"] == stage)
        # Times are rounded to a tenth of a microsecond.
        assert all(before[1] <= after[0] + 0.3 for before, after in pairwise(ordered))


def test_a_batch_is_computed_downstream_only_after_its_send_began(spans: list[dict[str, Any]]) -> None:
    sends = {span["args"]["batch_id"]: span["ts"] for span in spans if span["cat"] == "send"}
    arrivals = {span["args"]["batch_id"]: span["ts"] for span in spans if span["name"] == "forward 1"}
    assert sends.keys() == arrivals.keys() == RECORDED
    assert all(sends[batch] < arrivals[batch] for batch in RECORDED)


def test_the_summary_counts_stalenesses_and_what_went_over_the_link(outcome: Outcome) -> None:
    first, second = outcome.summary["stages"]
    assert first["staleness_counts"] == [] and first["slot_bytes"] == 0
    assert sum(second["staleness_counts"]) == second["batches"] == 12
    assert len(second["staleness_counts"]) == second["staleness_max"] + 1
    mean = sum(staleness * count for staleness, count in enumerate(second["staleness_counts"])) / 12
    assert mean == pytest.approx(second["staleness_mean"])
    assert set(first["link"]) == {"transport", "messages", "sent_bytes", "send_s", "wait_room_s", "dropped"}
    assert first["link"]["transport"] == "shm" and second["link"]["transport"] == "none"
    assert first["link"]["messages"] == 12 + 3 + 2, "training, evaluation (359 images), two marks"
    assert first["link"]["sent_bytes"] > 1e5 and first["link"]["send_s"] > 0
    assert second["slot_bytes"] > 0 and second["link"]["messages"] == 0
    last = outcome.records(0)[-1]
    assert 0 < last.sent_bytes < first["link"]["sent_bytes"] and 0 < last.send_s < first["link"]["send_s"]
    assert last.samples == 11 * 128, "a record is made while the newest batch is not yet counted"
    assert 0 < last.train_s < first["train_s"]


def test_the_report_shows_the_run_and_needs_nothing_else(outcome: Outcome) -> None:
    text = report_of(outcome.folder)
    assert "<h1>vgg8b on digits</h1>" in text and "DGL, fifo links · 3 blocks in 2 processes" in text
    assert f"{100 * outcome.summary['accuracy']['final']:.2f}%" in text
    for part in (
        "Accuracy on the held-out part",
        "Local loss",
        "Where the training time went",
        "A few batches on one clock",
        "Throughput",
        "Occupancy",
        "Staleness",
        "Stage 1: mean",
        "What it ran on",
        "torch",
    ):
        assert part in text
    assert not re.search(r"""(src|href)=|url\(|@import|https?://""", text), "everything is in the page itself"
    figures = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert len(figures) == 6
    (timeline,) = [figure for figure in figures if figure.get("aria-label") == "timeline"]
    titles = [title.text for title in timeline.iter("title")]
    assert any(title.startswith("forward 0, batch ") for title in titles)
    assert any(title.startswith("learn 2, batch ") for title in titles)


def test_a_prediction_is_set_beside_what_was_measured(outcome: Outcome, tmp_path: Path) -> None:
    folder = shutil.copytree(outcome.folder, tmp_path / "run")
    predicted = asdict(Prediction(("conv4",), (0.1,), (1,), 0.2, 300.0, 2 * outcome.summary["samples_per_s"]))
    (folder / "summary.json").write_text(json.dumps(outcome.summary | {"predicted": predicted}))
    assert f"<td>{predicted['samples_per_s']:,.0f}</td>" in report_of(folder)
    assert "<td>50%</td>" in report_of(folder)


def test_a_failed_run_has_a_report_with_its_cause(tmp_path: Path) -> None:
    overrides = [*TINY, "partition.blocks=2", "logging.interval_steps=2", "debug.fault=raise", "debug.fault_step=8"]
    outcome = run_pipeline(overrides, 2, tmp_path)
    assert outcome.exit_codes == [1, 1]
    text = report_of(outcome.folder)
    assert "<b>failed</b> stage 0 failed: RuntimeError: scripted fault in block 0 at step 8" in text
    assert "recorded no trace" in text and "logging.trace_batches=20" in text
    assert 'aria-label="local loss"' in text and 'aria-label="accuracy"' not in text


def test_a_run_that_was_killed_has_a_report_of_what_there_is(outcome: Outcome, tmp_path: Path) -> None:
    folder = shutil.copytree(outcome.folder, tmp_path / "run")
    (folder / "summary.json").unlink()
    with (folder / "metrics" / "stage1.jsonl").open("a") as file:
        file.write('{"time_s": 1.0, "blo')
    text = report_of(folder)
    assert "<b>unfinished</b>" in text and "stage 1" in text
    for name in ("metrics", "trace.json"):
        shutil.rmtree(folder / name) if name == "metrics" else (folder / name).unlink()
    assert "Nothing was recorded." in report_of(folder)


def test_another_file_can_be_asked_for(outcome: Outcome, tmp_path: Path) -> None:
    assert report(outcome.folder, "--out", tmp_path / "page.html").stdout.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().endswith("</html>\n")


@pytest.mark.parametrize(("folder", "reason"), [("none", "no such folder"), (".", "has no config.yaml")])
def test_a_folder_that_is_no_runs_is_refused_in_one_line(folder: str, reason: str, tmp_path: Path) -> None:
    result = report(tmp_path / folder)
    assert result.returncode == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("greedypipe: ") and reason in line
