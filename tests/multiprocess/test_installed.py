"""The package as users have it: installed into an environment of its own, or run from a checkout that nobody installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import greedypipe
from tests.multiprocess.harness import TINY
from tests.multiprocess.installed import ROOT, make_environment, run

OWN_METHOD = '''
from greedypipe.pipeline.method import LocalLoss


class Mine(LocalLoss):
    """Half the task's loss."""

    def loss(self, sample):
        return self.task.loss(self.head(sample.h), sample.labels) / 2
'''
OWN = [*TINY, "partition.blocks=2", "method.name=pipeline:Mine"]
"""A method in the user's own file pipeline.py: it must be found, and must not hide greedypipe.pipeline."""


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.py").write_text(OWN_METHOD)
    return tmp_path


def assert_trained(result: "subprocess.CompletedProcess[str]", user_folder: Path) -> None:
    assert result.returncode == 0, result.stderr
    summary = json.loads((user_folder / "runs" / "vgg8b-digits-1" / "summary.json").read_text())
    assert summary["status"] == "finished" and len(summary["stages"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_installed_it_trains_from_any_folder(installed: Path, user_folder: Path) -> None:
    version = run([installed / "greedypipe", "--version"], user_folder)
    assert version.stdout == f"greedypipe {greedypipe.__version__}\n"
    code = "import greedypipe.launch.config.loader as loader; print(loader.BUNDLED)"
    bundled = Path(run([installed / "python", "-c", code], user_folder).stdout.strip())
    assert bundled.is_relative_to(installed.parent)
    assert {path.name for path in bundled.iterdir()} == {path.name for path in (ROOT / "configs").iterdir()}
    assert_trained(
        run([installed / "greedypipe", "train", "--config", "configs/digits.yaml", *OWN], user_folder), user_folder
    )


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_installed_it_runs_under_torchrun_as_a_module(installed: Path, user_folder: Path) -> None:
    torchrun = [installed / "python", "-m", "torch.distributed.run", "--nproc_per_node=2"]
    assert_trained(run([*torchrun, "-m", "greedypipe.launch.run", *OWN], user_folder), user_folder)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("is_installed", [False, True], ids=["not installed", "installed as well"])
def test_the_commands_of_a_checkout_are_files(
    is_installed: bool, installed: Path, checkout: Path, user_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commands = installed if is_installed else make_environment(tmp_path_factory.mktemp("bare"))
    missing = run([commands / "python", "-c", "import greedypipe"], user_folder)
    assert (missing.returncode == 0) == is_installed
    (checkout / "configs" / "only_here.yaml").write_text("training: {epochs: 1}\n")
    assert_trained(
        run([commands / "python", checkout / "launch" / "train.py", "--config", "only_here.yaml", *OWN], user_folder),
        user_folder,
    )
    alone = run(
        [commands / "python", checkout / "launch" / "run.py", "--print-config", "method.name=pipeline:Mine"], user_folder
    )
    assert alone.returncode == 0 and "name: pipeline:Mine" in alone.stdout, alone.stderr


def test_the_command_line_imports_no_torch_before_it_must(tmp_path: Path) -> None:
    checkout = {"PYTHONPATH": str(ROOT / "launch" / "checkout")}
    code = "import sys, greedypipe.__main__ as door; door.main(); assert 'torch' not in sys.modules"
    for argument in ("--version", "--help"):
        result = run([sys.executable, "-c", code, argument], tmp_path, **checkout)
        assert result.returncode == 0 and "greedypipe" in result.stdout, result.stderr


def test_an_unknown_command_is_one_line_with_the_nearest_one(tmp_path: Path) -> None:
    result = run([sys.executable, "-m", "greedypipe", "tarin"], ROOT)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "greedypipe: tarin: unknown command; did you mean train?\n"
