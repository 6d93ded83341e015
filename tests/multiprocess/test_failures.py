"""A stage that fails ends the whole run, soon, with the first cause said once and the right exit codes."""

import json
import time
from pathlib import Path

import pytest

from tests.multiprocess.harness import TINY, Outcome, run_pipeline

ENDLESS = [*TINY, "partition.blocks=3", "training.epochs=1000", "logging.interval_steps=5", "faults.heartbeat_timeout_s=4"]
SOON_S = 25.0
"""From start to end of all processes; no wait of a stage for another one may have run into its deadline (30 s)."""


def strike(fault: str, stage: int, tmp_path: Path, *more: str) -> tuple[Outcome, float]:
    started = time.monotonic()
    faults = [f"debug.fault={fault}", f"debug.fault_stage={stage}", "debug.fault_step=8"]
    outcome = run_pipeline([*ENDLESS, *faults, *more], 3, tmp_path)
    return outcome, time.monotonic() - started


def causes(outcome: Outcome) -> list[str]:
    """What the run said about its end, over all processes."""
    lines = "\n".join(outcome.printed).splitlines()
    return [line.removeprefix("greedypipe: ") for line in lines if line.startswith("greedypipe: ")]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_an_exception_is_said_once_and_ends_every_stage(stage: int, tmp_path: Path) -> None:
    outcome, seconds = strike("raise", stage, tmp_path)
    traceback = outcome.folder / "logs" / f"stage{stage}.traceback"
    fault = f"stage {stage} failed: RuntimeError: scripted fault in block {stage} at step 8"
    assert causes(outcome) == [f"{fault}; the traceback is in {traceback}"]
    assert outcome.exit_codes == [1, 1, 1]
    assert seconds < SOON_S
    assert "Traceback" not in outcome.printed[stage] and "Traceback" in traceback.read_text()
    summary = json.loads((outcome.folder / "summary.json").read_text())
    assert summary == {"status": "failed", "cause": causes(outcome)[0]}


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_process_that_ends_without_a_word_is_named_by_the_others(stage: int, tmp_path: Path) -> None:
    outcome, seconds = strike("exit", stage, tmp_path)
    (cause,) = causes(outcome)
    assert cause.startswith(f"stage {stage} (block {stage}, process ")
    assert "died without a word" in cause
    assert outcome.exit_codes == [17 if rank == stage else 1 for rank in range(3)]
    assert seconds < SOON_S


def test_a_stage_that_computes_for_ever_names_itself_and_leaves_its_stacks(tmp_path: Path) -> None:
    outcome, seconds = strike("hang", 1, tmp_path, "faults.hang_timeout_s=2")
    (cause,) = causes(outcome)
    assert cause.startswith("stage 1 (block 1, process ") and "hangs: computing for 2 s" in cause
    assert "_strike" in (outcome.folder / "logs" / "stage1.stacks").read_text()
    assert outcome.exit_codes == [1, 1, 1]
    assert seconds < SOON_S


def test_a_process_that_stands_still_is_named_by_the_others_and_killed(tmp_path: Path) -> None:
    outcome, seconds = strike("stop", 1, tmp_path, "faults.heartbeat_timeout_s=2")
    (cause,) = causes(outcome)
    assert cause.startswith("stage 1 (block 1, process ") and "hangs: no sign of life for 2 s" in cause
    assert outcome.exit_codes == [1, -9, 1]
    assert seconds < SOON_S


def test_a_loss_that_is_no_number_names_block_and_batch(tmp_path: Path) -> None:
    outcome, _ = strike("nan", 1, tmp_path)
    assert causes(outcome) == ["stage 1 failed: FloatingPointError: block 1: the local loss is nan at batch_id 8 (step 8)"]
    assert outcome.exit_codes == [1, 1, 1]


def test_a_stage_that_never_connects_is_named_after_the_deadline(tmp_path: Path) -> None:
    outcome = run_pipeline([*TINY, "partition.blocks=2", "faults.timeout_s=1", "debug.fault=none"], 2, tmp_path, absent=(1,))
    (cause,) = causes(outcome)
    assert cause == "stage 1 has not begun"
    assert outcome.exit_codes[0] == 1
