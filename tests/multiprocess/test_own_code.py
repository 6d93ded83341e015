"""A user's own code, from the folder in which the command is typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Named like a folder of launch/, which is where Python looks first for a file that is run.
MODULE = """
from torch import nn

def network(input_shape, num_classes, hidden):
    channels, rows, columns = input_shape
    first = nn.Sequential(nn.Flatten(), nn.Linear(channels * rows * columns, hidden))
    return nn.Sequential(first, nn.Linear(hidden, hidden), nn.Linear(hidden, num_classes))
"""


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    (tmp_path / "config.py").write_text(MODULE)
    return tmp_path


def run(folder: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "launch/run.py"), "model.name=config:network", *overrides]
    return subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, timeout=60)


def test_a_network_of_the_current_folder_is_trained_with_its_options(own_folder: Path) -> None:
    short = ["training.epochs=1", "data.batch_size=256", "partition.blocks=2", "head.name=linear"]
    done = run(own_folder, *short, "model.options.hidden=5", "optimizer.name=torch.optim:RMSprop", "run.name=own")
    assert done.returncode == 0, done.stderr
    assert "hidden: 5" in (own_folder / "runs/own/config.yaml").read_text()


def test_options_that_it_does_not_take_are_refused_before_anything_starts(own_folder: Path) -> None:
    refused = run(own_folder, "model.options={hidden: 4, hiden: 5}", "training.epochs=0")
    assert refused.returncode == 2 and not (own_folder / "runs").exists()
    assert refused.stderr.splitlines() == [
        "greedypipe: command line: model.options.hiden: unknown option of config:network; did you mean hidden?",
        "greedypipe: command line: training.epochs: got 0, allowed: greater than or equal to 1",
    ]
