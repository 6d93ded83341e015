"""`partition.boundaries=auto`, launch/plan.py, and the benchmark of their predictions."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from greedypipe.launch import plan
from greedypipe.launch.config.loader import load_config
from tests.multiprocess.harness import TINY, assert_equal_states, exported, run_pipeline

AUTO = [*TINY, "partition.blocks=2", "partition.boundaries=auto", "partition.profile_s=0.1"]


def test_a_run_that_cuts_itself_equals_one_with_the_cut_that_it_notes(tmp_path: Path) -> None:
    outcome = run_pipeline(AUTO, 2, tmp_path)
    assert outcome.exit_codes == [0, 0], outcome.printed
    predicted = outcome.summary["predicted"]
    noted = load_config(str(outcome.folder / "config.yaml"), [])
    assert noted.partition.boundaries == tuple(predicted["boundaries"]) and len(predicted["boundaries"]) == 1
    assert 0 < predicted["samples_per_s"] <= predicted["bound_samples_per_s"]
    assert "times the measured rate" in outcome.printed[0]
    explicit = [*TINY, "partition.blocks=2", f"partition.boundaries=[{predicted['boundaries'][0]}]"]
    assert_equal_states(exported(run_pipeline(explicit, 1, tmp_path)), exported(outcome))


def test_the_plan_shows_every_stage_and_a_cut_to_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = ["--json", str(tmp_path / "plan.json")]
    monkeypatch.setattr(
        sys, "argv", ["launch/plan.py", "--stages", "2", "--seconds", "0.1", *written, *AUTO, "method.name=overlap"]
    )
    plan.main()
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "plan.json").read_text())
    assert f"partition.boundaries=[{found['layers']['boundaries'][0]}]" in text
    assert 0 < found["rehearsal"]["samples_per_s"] <= found["rehearsal"]["bound_samples_per_s"]
    assert all(word in text for word in ("epsilon", "alpha", "bound", "predicted throughput", "links (shm)", "feedback:"))
    assert len(found["layers"]["stage_s"]) == len(found["rehearsal"]["stages"]) == 2
    assert found["layers"]["imbalance"] >= 1 and found["rehearsal"]["samples_per_s"] > 0
    assert found["rehearsal"]["stages"][1]["slot_bytes"] > 0
    (needed,) = found["feedback"]["needed_delays"]
    assert needed > 1 and f"feedback.delay of {needed:.2f} here" in text
    assert found["rehearsal"]["feedback"]["delays"] == [1] and 0 < found["feedback"]["share_of_bound"] <= 1


def test_processes_beyond_the_blocks_become_replicas_of_the_slowest_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["launch/plan.py", "--stages", "3", "--seconds", "0.1", *AUTO])
    plan.main()
    text = capsys.readouterr().out
    assert "rehearsing with 3 processes" in text
    assert "placement.replicas=[2,1]" in text or "placement.replicas=[1,2]" in text


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["partition.boundaries=automatic"], "partition.boundaries"),
        (["partition.blocks=9", "partition.boundaries=auto"], "partition.blocks: got 9"),
        (["partition.blocks=2", "partition.boundaries=[pool2]"], "pool2 cannot be judged"),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_line(
    overrides: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["launch/plan.py", "--stages", "2", *TINY, *overrides])
    with pytest.raises(SystemExit) as left:
        plan.main()
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.timeout(120)
def test_the_benchmark_compares_predictions_with_runs(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("planner", "--out", str(tmp_path / "planner"))
    results = json.loads((tmp_path / "planner.json").read_text())
    assert set(results["predicted_over_measured"]) == {"rehearsed", "layers"}
    assert all(ratio["median"] > 0 for ratio in results["predicted_over_measured"].values())
