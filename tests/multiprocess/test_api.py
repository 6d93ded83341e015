"""The door for scripts and notebooks: greedypipe.train and greedypipe.Run."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import greedypipe
from greedypipe.launch import api
from tests.multiprocess.harness import TINY
from tests.multiprocess.started import assert_all_gone, descendants

ROOT = Path(__file__).resolve().parents[2]
CRASH = ["debug.fault=raise", "debug.fault_stage=1", "debug.fault_step=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> greedypipe.Run:
    """What examples/notebook.py has trained: a script without `if __name__ == "__main__"`, run from a folder of its own."""
    folder = tmp_path_factory.mktemp("user")
    variables = os.environ | {"PYTHONPATH": str(ROOT / "launch" / "checkout")}
    command = [sys.executable, str(ROOT / "examples" / "notebook.py")]
    result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stderr
    assert "epoch   2/2" in result.stdout and "conv3: (64, " in result.stdout
    return greedypipe.Run(folder / "runs" / "vgg8b-digits-1")


def test_the_network_and_the_exits_have_the_runs_accuracies(run: greedypipe.Run) -> None:
    network, right, totals = run.network(), torch.zeros(4), 0
    for images, labels in run.test_batches():
        with torch.no_grad():
            answers = [*run.exits(images), network(images)]
        right += torch.tensor([int((one.argmax(1) == labels).sum()) for one in answers])
        totals += len(labels)
    accuracy = run.summary["accuracy"]
    assert (right / totals).tolist() == pytest.approx([*accuracy["blocks"], accuracy["final"]])


def test_features_and_heads_are_parts_of_the_network(run: greedypipe.Run) -> None:
    images, _ = next(run.test_batches())
    network, heads = run.network(), run.heads()
    names = [name for name, _ in network.named_children()]
    assert names[:4] == ["conv1", "conv2", "pool1", "conv3"] and names[-1] == "classifier"
    assert len(heads) == 3 and not any(part.training for part in [*network.modules(), *heads])
    with torch.no_grad():
        first = nn.Sequential(*list(network.children())[:4])(images)
        torch.testing.assert_close(run.features(images, "conv3"), first)
        torch.testing.assert_close(run.exits(images)[-1], heads[-1](run.features(images, names[-2])))
    with pytest.raises(ValueError, match=r"got 'conv33', allowed: conv1, .*, fc1"):
        run.features(images, "conv33")


def test_a_copy_of_the_network_may_be_changed(run: greedypipe.Run) -> None:
    images, _ = next(run.test_batches())
    before = run.exits(images)
    network = run.network()
    nn.init.zeros_(next(network.parameters()))
    network.train()
    assert torch.equal(run.exits(images), before)


def test_metrics_are_rows_or_a_data_frame(run: greedypipe.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = run.metrics()
    assert {(row["stage"], row["block"]) for row in rows} == {("0", 0), ("1", 1), ("1", 2)}
    assert [row["step"] for row in rows if row["block"] == 2][:2] == [5, 10] and all(row["loss"] > 0 for row in rows)
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=lambda rows: ("frame", rows)))
    assert run.metrics() == ("frame", rows)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        greedypipe.Run(tmp_path / "nowhere")


def test_what_is_wrong_is_raised_before_anything_starts(tmp_path: Path) -> None:
    folder = f"run.folder={tmp_path}"
    with pytest.raises(greedypipe.ConfigError, match=r"^config: data\.nam: unknown key; did you mean data\.name\?$"):
        greedypipe.train({"data": {"nam": "digits"}}, folder)
    with pytest.raises(greedypipe.ConfigError, match="stages"):
        greedypipe.train(None, folder, "partition.blocks=2", stages=3)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def nobody_is_left() -> Iterator[None]:
    before = descendants(os.getpid())
    yield
    assert_all_gone(descendants(os.getpid()) - before)


@pytest.mark.usefixtures("nobody_is_left")
def test_a_run_that_fails_raises_its_first_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.get_rng_state()
    with pytest.raises(greedypipe.RunFailed, match="scripted fault in block 2 at step 3") as failed:
        greedypipe.train(None, *TINY, *CRASH, f"run.folder={tmp_path}", stages=2)
    assert (failed.value.code, failed.value.folder) == (1, tmp_path / "vgg8b-digits-1")
    assert "4 blocks in 2 processes" in capsys.readouterr().out
    assert torch.equal(torch.get_rng_state(), generator)
    unfinished = greedypipe.Run(failed.value.folder)
    assert unfinished.summary["status"] == "failed"
    with pytest.raises(ValueError, match="no complete checkpoint"):
        unfinished.network()


@pytest.mark.slow
@pytest.mark.usefixtures("nobody_is_left")
def test_interrupting_the_call_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "print", interrupt, raising=False)
    with pytest.raises(KeyboardInterrupt):
        greedypipe.train(None, *TINY, "training.epochs=2000", f"run.folder={tmp_path}", stages=2)
    assert json.loads((tmp_path / "vgg8b-digits-1" / "summary.json").read_text())["status"] == "stopped"
