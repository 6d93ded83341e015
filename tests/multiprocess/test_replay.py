"""Asynchronous DGL with real processes: stages of different speed that never wait for each other."""

import json
from pathlib import Path

from tests.multiprocess.harness import TINY, run_pipeline

SLOWED = [
    *TINY,
    "partition.blocks=3",
    "training.epochs=4",
    "buffers.policy=replay",
    "buffers.max_reuse=0",
    "debug.slow_stage=1",
    "debug.slow_factor=3",
]


def test_no_stage_waits_for_a_slower_one(tmp_path: Path) -> None:
    outcome = run_pipeline(SLOWED, 3, tmp_path)
    assert outcome.exit_codes == [0, 0, 0], outcome.printed
    before, slow, behind = json.loads((outcome.folder / "summary.json").read_text())["stages"]
    assert {stage["batches"] for stage in (before, slow, behind)} == {4 * 12}
    # With queues it would be two thirds; a little is left where three processes share two cores.
    assert before["wait_output_fraction"] < 0.25
    assert slow["dropped"] > 0, "the faster stage before it must have replaced batches that nobody read"
    assert behind["reuse_mean"] > 1.2, "the faster stage behind it must have read batches again"
    assert before["hand_on_s"] > 0, "a finished stage hands on until the slowest one has finished"
    # Stage 2 waits for its first batch only.
    assert behind["wait_input_fraction"] < 0.25


def test_every_evaluation_pass_is_complete(tmp_path: Path) -> None:
    outcome = run_pipeline(SLOWED, 3, tmp_path)
    evaluations = [json.loads(line) for line in (outcome.folder / "metrics" / "evaluations.jsonl").read_text().splitlines()]
    assert [evaluation["epoch"] for evaluation in evaluations] == [1, 2, 3, 4]
    assert all(len(evaluation["blocks"]) == 3 for evaluation in evaluations)
    summary = json.loads((outcome.folder / "summary.json").read_text())
    assert summary["accuracy"]["final"] == evaluations[-1]["blocks"][-1]
