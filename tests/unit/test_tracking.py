"""Optional trackers: what they are given, and that none of them can end a run. logging.wandb, logging.tensorboard."""

import sys
from pathlib import Path

import pytest

from greedypipe.launch.reporting.trackers import HarmlessTracker, evaluation_values, make_trackers, stage_values
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.meter import LoggingConfig
from greedypipe.workers.telemetry.records import StageRow
from greedypipe.workers.telemetry.results import Evaluation
from greedypipe.workers.telemetry.status import StageStatus

EVALUATION = Evaluation(2, [0.5, 0.75], 0.7)


def row(step: int) -> StageRow:
    status = StageStatus(Seat(1, 1), [2, 3], 0, "host")
    status.step, status.loss = step, {2: 0.5, 3: 0.25}
    return status.row()


def test_keys_carry_stage_and_block() -> None:
    values = stage_values(row(4))
    assert values["stage1/block2/loss"] == 0.5 and values["stage1/block3/loss"] == 0.25
    assert {"stage1/samples_per_s", "stage1/staleness_mean"} <= set(values)
    assert evaluation_values(EVALUATION) == {
        "accuracy/block0": 0.5,
        "accuracy/block1": 0.75,
        "accuracy/final": 0.75,
        "accuracy/ensemble": 0.7,
    }


def test_nothing_is_tracked_unless_asked(tmp_path: Path) -> None:
    assert make_trackers(LoggingConfig(), tmp_path, {}) == []


@pytest.mark.parametrize(("key", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")])
def test_a_tracker_that_is_not_installed_is_one_warning(
    key: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert make_trackers(LoggingConfig(**{key: True}), tmp_path, {}) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("greedypipe: training goes on without") and f"pip install 'greedypipe[{key}]'" in line


def test_a_tracker_that_breaks_is_one_warning_and_is_asked_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        calls = 0

        def log(self, row: StageRow) -> None:
            self.calls += 1
            raise OSError("disk full")

    broken = Broken()
    tracker = HarmlessTracker(broken)  # type: ignore[arg-type]
    for _ in range(3):
        tracker.log(row(1))
    tracker.close()
    assert broken.calls == 1
    assert capsys.readouterr().err == "greedypipe: training goes on without Broken: disk full\n"


def test_wandb_without_a_key_writes_one_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tracker,) = make_trackers(LoggingConfig(wandb=True), tmp_path, {"training": {"epochs": 3}})
    tracker.log(row(4))
    tracker.log(row(4))
    tracker.log_evaluation(EVALUATION)
    tracker.close()
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


def test_tensorboard_keeps_every_stages_own_steps(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tracker,) = make_trackers(LoggingConfig(tensorboard=True), tmp_path, {})
    tracker.log(row(4))
    tracker.log(row(8))
    tracker.log_evaluation(EVALUATION)
    tracker.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("stage1/block2/loss")] == [4, 8]
    assert [event.value for event in events.Scalars("accuracy/final")] == [0.75]
