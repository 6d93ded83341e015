"""What is done with a run's folder afterwards, and beside it: export, evaluation, status."""

import errno
import json
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from greedypipe.launch import evaluate, export, status
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.recovery.exit_codes import FAILED
from greedypipe.pipeline.exits import EarlyExit
from greedypipe.workers.data.source import BatchSource
from tests.multiprocess.harness import TINY, run_pipeline

RUN = [*TINY, "partition.blocks=3", "training.epochs=2", "data.calibration_samples=150"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    result = run_pipeline(RUN, 2, tmp_path_factory.mktemp("run"))
    assert result.exit_codes == [0, 0], result.printed
    return result


def call(main: object, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    main()  # type: ignore[operator]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_exported_file_is_the_plain_network_with_its_accuracy(
    suffix: str, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"model{suffix}"
    call(export.main, monkeypatch, str(outcome.folder), "--out", str(path))
    load = load_file if suffix == ".safetensors" else lambda file: torch.load(file, weights_only=True)
    plan = make_plan(load_config(str(outcome.folder / "config.yaml"), []), 1)
    network = plan.blueprint.network
    for layer in (*network.layers, network.classifier):
        own = {layer.qualified(key): key for key in layer.module.state_dict()}
        layer.module.load_state_dict({own[name]: value for name, value in load(path).items() if name in own}, strict=True)
    plain = nn.Sequential(*(layer.module for layer in network.layers), network.classifier.module).eval()
    right = total = 0
    with torch.no_grad():
        for batch in BatchSource(plan.config.data, 0).test_batches():
            right += int((plain(batch.images).argmax(1) == batch.labels).sum())
            total += len(batch.labels)
    assert right / total == outcome.summary["accuracy"]["final"]
    heads = load(tmp_path / f"model.heads{suffix}")
    assert {name.split(".")[0] for name in heads} == {"block0", "block1"}


def test_a_resnet18_goes_into_torchvisions_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    images = ["data.name=synthetic", "data.samples=64", "data.batch_size=16", "data.classes=10", "model.name=resnet18"]
    trained = run_pipeline([*images, "partition.blocks=2", "training.epochs=1", "optimizer.lr=0.05"], 2, tmp_path)
    assert trained.exit_codes == [0, 0], trained.printed
    path = tmp_path / "model.safetensors"
    call(export.main, monkeypatch, str(trained.folder), "--out", str(path))
    network = torchvision.models.resnet18(num_classes=10)
    network.load_state_dict(load_file(path), strict=True)
    config = load_config(str(trained.folder / "config.yaml"), [])
    with torch.no_grad():
        batches = BatchSource(config.data, 0).test_batches()
        right = [network.eval()(batch.images).argmax(1) == batch.labels for batch in batches]
    assert float(torch.cat(right).double().mean()) == trained.summary["accuracy"]["final"]


def test_evaluation_gives_the_runs_accuracies_and_calibrated_early_exits(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(evaluate.main, monkeypatch, str(outcome.folder))
    found = json.loads((outcome.folder / "evaluation.json").read_text())
    assert [one["accuracy"] for one in found["exits"]] == outcome.summary["accuracy"]["blocks"]
    assert found["ensemble_accuracy"] == outcome.summary["accuracy"]["ensemble"]
    assert all(one["temperature"] not in (0.0, 1.0) for one in found["exits"])
    costs = [one["cost"] for one in found["exits"]]
    assert costs == sorted(costs) and costs[-1] > 1
    nobody = found["early_exit"][-1]
    assert nobody["accuracy"] == outcome.summary["accuracy"]["final"] and nobody["shares"] == [0, 0, 1]
    assert (outcome.folder / "evaluation.png").stat().st_size > 1000
    assert "calibrated on 150 samples" in capsys.readouterr().out


def test_the_status_of_a_run_names_every_stage(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(status.main, monkeypatch, str(outcome.folder))
    printed = capsys.readouterr().out
    assert "has ended" in printed and "s ago: finished" in printed
    rows = status.read_status(outcome.folder).stages
    assert [row.stage for row in rows if row] == [0, 1] and all(row.unix_s <= time.time() for row in rows if row)


FOUND = evaluate.Findings(
    checkpoint="final",
    data="digits",
    class_samples={"0": 2},
    notes=[],
    test_samples=2,
    calibration_samples=0,
    exits=[evaluate.Exit(0, "fc", 0.5, 1.0, 0.1, 1.0)],
    ensemble_accuracy=0.5,
    early_exit=[EarlyExit(0.5, 0.5, 1.0, [1.0])],
)


@pytest.mark.parametrize("file", [".json", ".png"])
def test_a_full_disk_costs_an_evaluation_its_files_and_not_its_figures(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sync = os.fsync

    def full(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == f"evaluation{file}.partial":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(evaluate, "find_checkpoint", lambda run: run)
    monkeypatch.setattr(evaluate, "evaluate", lambda *given: FOUND)
    with pytest.raises(SystemExit) as left:
        call(evaluate.main, monkeypatch, str(tmp_path))
    printed, errors = capsys.readouterr()
    assert left.value.code == FAILED and "0.5000" in printed
    assert errors == f"greedypipe: {tmp_path / 'evaluation'}{file} cannot be written: No space left on device\n"
    assert not list(tmp_path.glob(f"*{file}*"))


@pytest.mark.parametrize(
    ("main", "arguments", "complaint"),
    [
        (export.main, ["nowhere", "--out", "x.pt"], "got no complete checkpoint"),
        (export.main, ["nowhere", "--out", "x.bin"], ".pt2, .pt, .safetensors"),
        (evaluate.main, ["nowhere"], "got no complete checkpoint"),
        (status.main, ["nowhere"], "got no status.json"),
    ],
)
def test_a_wrong_folder_is_said_in_a_line(
    main: object,
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        call(main, monkeypatch, str(tmp_path / arguments[0]), *arguments[1:])
    assert left.value.code
    assert complaint in str(left.value.code) + capsys.readouterr().err
