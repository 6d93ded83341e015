"""A run as a job: `ray job submit` as users type it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import sweep
from tests.multiprocess.harness import TINY
from tests.ray.conftest import ROOT, Cluster

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def submit(cluster: Cluster, *arguments: str) -> "subprocess.CompletedProcess[str]":
    ray = Path(sys.executable).with_name("ray")
    address = f"http://127.0.0.1:{cluster.dashboard_port}"
    command = [
        str(ray),
        "job",
        "submit",
        "--address",
        address,
        "--working-dir",
        ".",
        "--",
        sys.executable,
        "launch/ray_run.py",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT, env=cluster.environment)


def test_a_job_succeeds_and_leaves_its_run_and_its_logs(cluster: Cluster, tmp_path: Path) -> None:
    result = submit(cluster, *TINY, "partition.blocks=3", f"run.folder={tmp_path}", "run.name=job")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "succeeded" in result.stdout and "accuracy" in result.stdout
    assert json.loads((tmp_path / "job" / "summary.json").read_text())["status"] == "finished"
    assert {path.name for path in (tmp_path / "job" / "logs").iterdir()} == {f"stage{one}.log" for one in range(3)}


def test_a_job_needs_a_folder_that_outlives_it(cluster: Cluster) -> None:
    result = submit(cluster, *TINY, "run.folder=runs")
    assert result.returncode != 0
    assert "run.folder: got runs, allowed in a job: an absolute folder that all nodes share" in result.stdout + result.stderr
    assert not os.environ.get("RAY_ADDRESS")


def test_a_sweep_runs_as_jobs(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"http://127.0.0.1:{cluster.dashboard_port}"
    fixed = [*TINY, "partition.blocks=1", "training.seed=0,1", "--processes", "1"]
    monkeypatch.setattr(
        sys, "argv", ["sweep", "configs/digits.yaml", *fixed, "--out", str(tmp_path), "--jobs", address, "--at-once", "1"]
    )  # the nodes of this cluster unpack the code into one folder: two jobs at once would meet there
    monkeypatch.chdir(ROOT)
    sweep.main()
    runs = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    shown = capsys.readouterr().out
    assert [run["status"] for run in runs] == ["finished", "finished"], shown
    assert "training.seed" in shown and runs[0]["accuracy"] != runs[1]["accuracy"]
