"""The commands that users type, as they type them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
import torch

from greedypipe.launch import run
from greedypipe.launch.checkpoints.trained_network import network_state
from greedypipe.launch.on_host import local_run
from greedypipe.launch.reporting.status_file import read_status
from tests.multiprocess.harness import TINY, assert_equal_states, exported

ROOT = Path(__file__).resolve().parents[2]


def torchrun(num_processes: int, *arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={num_processes}"]
    return finish([*launcher, str(ROOT / "launch/run.py"), *arguments], cwd)


def finish(command: list[str], cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=110
    )


@pytest.mark.timeout(300)
def test_torchrun_and_export_give_the_bytes_and_accuracies_of_one_process(tmp_path: Path) -> None:
    alone = local_run.run_pipeline(TINY, 1, tmp_path / "alone", config=str(ROOT / "configs" / "digits.yaml"))
    folder, model = tmp_path / "with2", tmp_path / "model.pt"
    result = torchrun(2, *TINY, f"run.folder={tmp_path}", f"run.name={folder.name}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    export = finish([sys.executable, str(ROOT / "launch/export.py"), str(folder), "--out", str(model)])
    assert export.returncode == 0, export.stderr
    assert_equal_states(torch.load(model, weights_only=True), exported(alone))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["accuracy"] == alone.summary["accuracy"]
    assert [stage["blocks"] for stage in summary["stages"]] == [[0, 1], [2, 3]]
    wanted = {"status", "samples_per_s", "bound_samples_per_s", "efficiency", "wall_s", "versions", "hardware"}
    assert wanted <= set(summary) and summary["status"] == "finished"


def kill_a_stage_behind_a_checkpoint(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if list(folder.glob("checkpoints/*/manifest.json")) and (folder / "status.json").exists():
            os.kill(read_status(folder).stages[1].pid, signal.SIGKILL)
            return
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_run_that_torchrun_restarts_goes_on_by_itself_with_the_same_bits(tmp_path: Path) -> None:
    overrides = [*TINY, "training.epochs=16", "evaluation.every_epochs=16", "checkpoint.interval_steps=5"]
    killer = Thread(target=kill_a_stage_behind_a_checkpoint, args=(tmp_path / "run",))
    killer.start()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--max-restarts=1"]
    result = finish([*launcher, str(ROOT / "launch/run.py"), *overrides, f"run.folder={tmp_path}", "run.name=run"])
    killer.join()
    assert result.returncode == 0, result.stderr
    assert "goes on at batch" in result.stdout and "died without a word" in result.stderr
    alone = local_run.run_pipeline(overrides, 1, tmp_path / "alone", config=str(ROOT / "configs" / "digits.yaml"))
    assert_equal_states(network_state(tmp_path / "run"), exported(alone))
    by_hand = [sys.executable, "launch/run.py", *overrides, f"run.folder={tmp_path}", "run.name=run", "--resume", "auto"]
    again = finish(by_hand)
    assert again.returncode == 0 and "goes on at batch 192" in again.stdout, again.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_under_torchrun_a_stage_comes_back_alone_with_the_same_bits(tmp_path: Path) -> None:
    overrides = [*TINY, "training.epochs=8", "evaluation.every_epochs=8", "checkpoint.interval_steps=5"]
    killer = Thread(target=kill_a_stage_behind_a_checkpoint, args=(tmp_path / "run",))
    killer.start()
    slow = ["debug.slow_stage=0", "debug.slow_factor=3", "faults.policy=isolate"]
    result = torchrun(2, *overrides, *slow, f"run.folder={tmp_path}", "run.name=run")
    killer.join()
    assert result.returncode == 0, result.stderr
    assert "stage 1 was killed by signal SIGKILL: started again alone" in result.stderr
    assert "goes on at batch" in result.stdout and "started again alone: stage 1 1 x" in result.stdout
    alone = local_run.run_pipeline(overrides, 1, tmp_path / "alone", config=str(ROOT / "configs" / "digits.yaml"))
    assert_equal_states(network_state(tmp_path / "run"), exported(alone))


@pytest.mark.timeout(120)
def test_a_wrong_configuration_is_said_once_for_all_processes(tmp_path: Path) -> None:
    result = torchrun(2, "buffers.capcity=3", f"run.folder={tmp_path}")
    assert result.returncode != 0
    complaints = [line for line in result.stderr.splitlines() if line.startswith("greedypipe: ")]
    assert complaints == ["greedypipe: command line: buffers.capcity: unknown key; did you mean buffers.capacity?"]
    assert not list(tmp_path.iterdir()), "nothing may have been started"
    # A process that torchrun ends while it still imports is reported too, as ended by a signal.
    assert result.stderr.count("exitcode  : 2 ") == 1, "torchrun reports who has said it alone"
    assert f"traceback : {complaints[0].removeprefix('greedypipe: ')}" in result.stderr


def test_the_printed_configuration_gives_the_same_configuration_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["launch/run.py", "--print-config", *arguments])
        run.main()
        return capsys.readouterr().out

    first = printed("buffers.capacity=7")
    path = tmp_path / "printed.yaml"
    path.write_text(first)
    assert printed("--config", str(path)) == first and "capacity: 7" in first
