"""The commands that users type, as they type them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.multiprocess.harness import TINY

ROOT = Path(__file__).resolve().parents[2]


def torchrun(num_processes: int, *arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={num_processes}"]
    return finish([*launcher, str(ROOT / "launch/run.py"), *arguments], cwd)


def finish(command: list[str], cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=cwd, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=110
    )


def train_and_export(num_processes: int, tmp_path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    folder = tmp_path / f"with{num_processes}"
    result = torchrun(num_processes, *TINY, f"run.folder={tmp_path}", f"run.name={folder.name}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    exported = finish([sys.executable, str(ROOT / "launch/export.py"), str(folder), "--out", str(tmp_path / "model.pt")])
    assert exported.returncode == 0, exported.stderr
    return torch.load(tmp_path / "model.pt", weights_only=True), json.loads((folder / "summary.json").read_text())


@pytest.mark.timeout(300)
def test_any_number_of_processes_gives_the_same_bytes_and_accuracies(tmp_path: Path) -> None:
    (one, first), (two, last) = (train_and_export(num_processes, tmp_path) for num_processes in (1, 2))
    assert list(one) == list(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert first["accuracy"] == last["accuracy"]
    assert [stage["blocks"] for stage in last["stages"]] == [[0, 1], [2, 3]]
    wanted = {"status", "samples_per_s", "bound_samples_per_s", "efficiency", "wall_s", "versions", "hardware"}
    assert wanted <= set(last) and last["status"] == "finished"


@pytest.mark.timeout(120)
def test_a_wrong_configuration_is_said_once_for_all_processes(tmp_path: Path) -> None:
    result = torchrun(2, "buffers.capcity=3", f"run.folder={tmp_path}")
    assert result.returncode != 0
    complaints = [line for line in result.stderr.splitlines() if line.startswith("greedypipe: ")]
    assert complaints == ["greedypipe: command line: buffers.capcity: unknown key; did you mean buffers.capacity?"]
    assert not list(tmp_path.iterdir()), "nothing may have been started"


def test_the_printed_configuration_gives_the_same_configuration_again(tmp_path: Path) -> None:
    first = finish([sys.executable, "launch/run.py", "--print-config", "buffers.capacity=7"])
    path = tmp_path / "printed.yaml"
    path.write_text(first.stdout)
    again = finish([sys.executable, "launch/run.py", "--print-config", "--config", str(path)])
    assert first.returncode == again.returncode == 0
    assert first.stdout == again.stdout and "capacity: 7" in first.stdout
