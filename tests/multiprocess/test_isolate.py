"""A stage that dies is started again alone, and nothing is lost (`faults.policy=isolate`)."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from greedypipe.launch.on_host.outcome import Outcome
from tests.multiprocess.harness import TINY, assert_equal_states, exported, run_pipeline
from tests.multiprocess.test_failures import causes

RUN = [
    *TINY,
    "partition.blocks=3",
    "training.epochs=3",
    "checkpoint.interval_steps=5",
    "logging.interval_steps=1",
    "faults.heartbeat_timeout_s=2",
]
ISOLATE = [*RUN, "faults.policy=isolate"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_pipeline(RUN, 3, tmp_path_factory.mktemp("uninterrupted"))


def fault(kind: str, stage: int, step: int) -> list[str]:
    return [f"debug.fault={kind}", f"debug.fault_stage={stage}", f"debug.fault_step={step}"]


def restarts(outcome: Outcome) -> list[int]:
    return [report["restarts"] for report in outcome.summary["stages"]]


def assert_as_if_nothing_had_happened(outcome: Outcome, uninterrupted: Outcome) -> None:
    assert outcome.exit_codes == [0, 0, 0], outcome.printed
    assert_equal_states(exported(outcome), exported(uninterrupted))
    assert outcome.summary["evaluations"] == uninterrupted.summary["evaluations"]
    for stage in range(3):
        steps = [record.step for record in outcome.records(stage)]
        assert steps == list(range(1, 37)), "every step is on record once"


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_fifo_gives_the_bits_of_a_run_that_was_never_struck(stage: int, uninterrupted: Outcome, tmp_path: Path) -> None:
    # Late enough that a checkpoint is complete, however fast the steps are.
    outcome = run_pipeline([*ISOLATE, *fault("exit", stage, 33)], 3, tmp_path)
    assert_as_if_nothing_had_happened(outcome, uninterrupted)
    assert restarts(outcome) == [int(stage == one) for one in range(3)]
    assert f"started again alone: stage {stage} 1 x" in outcome.printed[0]
    assert "goes on at batch " in outcome.printed[0]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("raise", "stage1.traceback; it is started again alone"),
        ("hang", "stage1.stacks; it is started again alone"),
        ("stop", ""),
    ],
)
def test_however_it_fails(kind: str, said: str, uninterrupted: Outcome, tmp_path: Path) -> None:
    outcome = run_pipeline([*ISOLATE, *fault(kind, 1, 17), "faults.hang_timeout_s=2"], 3, tmp_path)
    assert_as_if_nothing_had_happened(outcome, uninterrupted)
    assert said in outcome.printed[1]


def test_links_between_hosts_are_given_up_and_made_again(uninterrupted: Outcome, tmp_path: Path) -> None:
    outcome = run_pipeline([*ISOLATE, "link.transport=gloo", *fault("exit", 1, 17)], 3, tmp_path)
    assert_as_if_nothing_had_happened(outcome, uninterrupted)
    assert restarts(outcome) == [0, 1, 0]


def test_before_the_first_checkpoint_all_begin_anew(uninterrupted: Outcome, tmp_path: Path) -> None:
    outcome = run_pipeline([*ISOLATE, *fault("exit", 2, 1)], 3, tmp_path)
    assert_as_if_nothing_had_happened(outcome, uninterrupted)


@pytest.mark.parametrize("transport", ["shm", pytest.param("gloo", marks=pytest.mark.slow)])
def test_with_replay_the_others_go_on(transport: str, tmp_path: Path) -> None:
    settings = ["buffers.policy=replay", f"link.transport={transport}", "debug.slow_stage=1", "debug.slow_factor=4"]
    outcome = run_pipeline([*ISOLATE, *fault("exit", 1, 17), *settings], 3, tmp_path)
    assert outcome.exit_codes == [0, 0, 0], outcome.printed
    assert restarts(outcome) == [0, 1, 0]
    assert "stage 1 is back and goes on at batch" in outcome.printed[1]
    for stage in range(3):
        steps = [record.step for record in outcome.records(stage)]
        assert steps[-1] == 36 and steps == sorted(steps)
    assert [len(outcome.summary["evaluations"][-1]["blocks"]), outcome.summary["evaluations"][-1]["epoch"]] == [3, 3]


def test_one_that_dies_too_often_ends_the_run_and_is_named(tmp_path: Path) -> None:
    overrides = [*ISOLATE, "faults.max_restarts=0", *fault("exit", 1, 7)]
    started = time.monotonic()
    outcome = run_pipeline(overrides, 3, tmp_path)
    (cause,) = causes(outcome)
    assert cause.startswith("stage 1 ") and "died" in cause
    assert outcome.exit_codes == [1, 1, 1] and time.monotonic() - started < 25
    assert json.loads((outcome.folder / "summary.json").read_text())["status"] == "failed"


def test_every_stage_may_die_more_than_once(uninterrupted: Outcome, tmp_path: Path) -> None:
    killed: list[int] = []

    def strike() -> None:
        for stage in (1, 0, 2, 1):
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                time.sleep(0.3)
                try:
                    row = json.loads((tmp_path / "run0" / "status.json").read_text())["stages"][stage]
                    if row["step"] > 2 and row["pid"] not in killed:
                        os.kill(row["pid"], signal.SIGKILL)
                        killed.append(row["pid"])
                        break
                except (FileNotFoundError, TypeError, ProcessLookupError):
                    continue

    striker = threading.Thread(target=strike)
    striker.start()
    slow = ["debug.slow_stage=0", "debug.slow_factor=12"]
    outcome = run_pipeline([*ISOLATE, *slow], 3, tmp_path)
    striker.join()
    assert_as_if_nothing_had_happened(outcome, uninterrupted)
    # The last one may have been killed when it had already reported.
    assert len(killed) >= 2 and sum(restarts(outcome)) in (len(killed) - 1, len(killed))
    assert not any(Path(f"/proc/{pid}").exists() for pid in killed)
