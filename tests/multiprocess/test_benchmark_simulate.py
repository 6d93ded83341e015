"""The simulator's command at its smallest size, and against a run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import simulate
from benchmarks.simulation.validation import check
from tests.multiprocess.harness import TINY, run_pipeline


@pytest.mark.timeout(200)
def test_it_compares_runs_and_draws_the_studies(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("simulate", "--out", str(tmp_path / "simulator"))
    validation, plan = (json.loads((tmp_path / f"simulator_{name}.json").read_text()) for name in ("validation", "plan"))
    assert [row["trial"] for row in validation["rows"]] == list(dict.fromkeys(run["trial"] for run in validation["runs"]))
    assert all(rate > 0 for run in validation["runs"] for rate in run["simulated_samples_per_s"])
    assert plan["scale"]["speed_up"]["FIFO"][1] > plan["scale"]["speed_up"]["FIFO"][0] > 1
    assert set(plan) >= {"scale", "links", "straggler", "replicas", "jitter", "command", "hardware"}
    assert (tmp_path / "simulator_plan.png").stat().st_size > 10_000


def test_a_finished_run_is_checked_and_another_folder_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run_pipeline([*TINY, "partition.blocks=2", "debug.slow_stage=1", "debug.slow_factor=4"], 2, tmp_path)
    found = check(outcome.folder)
    assert len(found["simulated_samples_per_s"]) == 2
    assert found["simulated_samples_per_s"][0] == pytest.approx(found["simulated_samples_per_s"][1], rel=0.01)
    monkeypatch.setattr(sys, "argv", ["simulate.py", "--check", str(tmp_path)])
    with pytest.raises(SystemExit):
        simulate.main()
    assert "got no finished run" in capsys.readouterr().err
