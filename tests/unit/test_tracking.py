"""Optional trackers: what they are given, and that none of them can end a run. logging.wandb, logging.tensorboard and
logging.wandb_project, wandb_entity, wandb_group, wandb_tags."""

import socket
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from greedypipe.launch.reporting.trackers import Run, make_trackers
from greedypipe.launch.reporting.trackers.harmless import HarmlessTracker
from greedypipe.launch.reporting.trackers.server import Server
from greedypipe.launch.reporting.trackers.values import block_values, evaluation_values, hyperparameters
from greedypipe.launch.reporting.trackers.weights_and_biases import ID
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.meter import LoggingConfig
from greedypipe.workers.telemetry.records import StageRow
from greedypipe.workers.telemetry.results import Evaluation
from greedypipe.workers.telemetry.status import StageStatus

EVALUATION = Evaluation(2, [0.5, 0.75], 0.7, [1.5, 0.5])
KEY = "0123456789" * 4
VARIABLES = ("MODE", "API_KEY", "BASE_URL", "PROJECT", "ENTITY", "RUN_GROUP", "TAGS", "RUN_ID", "IDENTITY_TOKEN_FILE")


class FakeWandb(ModuleType):
    """Notes how their client is called; `broken` modes fail as it does without a network."""

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        super().__init__("wandb")
        self.inits: list[dict[str, Any]] = []
        self.logged: list[dict[str, float]] = []
        self.metrics: dict[str, str | None] = {}
        self._broken = broken

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **arguments: Any) -> "FakeWandb":
        if arguments["mode"] in self._broken:
            raise RuntimeError("Error communicating with wandb process\nfor 20 s")
        self.inits.append(arguments)
        return self

    def teardown(self) -> None:
        self.logged.clear()

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics[name] = step_metric

    def log(self, values: dict[str, float]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.logged.append({})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any trace of Weights & Biases."""
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def run(folder: Path, num_blocks: int = 4, **keys: Any) -> Run:
    return Run(folder, {"training": {"epochs": 3}}, num_blocks, LoggingConfig(**keys))


def row(step: int, stage: int = 1, blocks: tuple[int, ...] = (2, 3)) -> StageRow:
    status = StageStatus(Seat(stage, stage), list(blocks), 0, "host", samples_per_s=100.0)
    status.step, status.loss = step, {block: block / 4 for block in blocks}
    status.learning_rate = dict.fromkeys(blocks, 0.1)
    return status.row()


def silent_server() -> tuple[socket.socket, str]:
    """A port that takes connections and never says a word."""
    listening = socket.create_server(("127.0.0.1", 0))
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_keys_are_of_blocks_and_the_same_for_any_number_of_processes() -> None:
    def keys(*rows: StageRow) -> set[str]:
        return {key for one in rows for _, values in block_values(one, 4) for key in values}

    together = keys(row(4, stage=0, blocks=(0, 1, 2, 3)))
    assert together == keys(*(row(4, stage, (stage,)) for stage in range(4)))
    assert {"block2/loss", "block2/learning_rate", "block0/samples_per_s", "throughput/samples_per_s"} <= together
    assert [values["block3/loss"] for block, values in block_values(row(4), 4) if block == 3] == [0.75]


def test_an_evaluation_has_accuracies_losses_and_the_best_so_far() -> None:
    assert evaluation_values(EVALUATION, 0.8) == {
        "accuracy/block0": 0.5,
        "accuracy/block1": 0.75,
        "accuracy/final": 0.75,
        "accuracy/ensemble": 0.7,
        "accuracy/best": 0.8,
        "heldout_loss/block0": 1.5,
        "heldout_loss/block1": 0.5,
        "heldout_loss/final": 0.5,
    }
    assert "heldout_loss/final" not in evaluation_values(Evaluation(2, [0.5], 0.5, [None]), 0.5)


def test_nothing_is_tracked_unless_asked(tmp_path: Path) -> None:
    assert make_trackers(run(tmp_path)) == []
    with pytest.raises(ValidationError, match=r"no effect without logging\.wandb=true"):
        LoggingConfig(wandb_tags=("a",))


@pytest.mark.parametrize(("key", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")])
def test_a_tracker_that_is_not_installed_is_one_warning(
    key: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert make_trackers(run(tmp_path, **{key: True})) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("greedypipe: the run continues without ") and f"pip install 'greedypipe[{key}]'" in line


def test_a_tracker_that_breaks_is_one_warning_and_is_asked_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        calls = 0

        def log(self, row: StageRow) -> None:
            self.calls += 1
            raise OSError("disk full\nfor good")

    broken = Broken()
    tracker = HarmlessTracker("Broken", broken)  # type: ignore[arg-type]
    for _ in range(3):
        tracker.log(row(1))
    tracker.close()
    assert broken.calls == 1
    assert capsys.readouterr().err == "greedypipe: the run continues without Broken: OSError: disk full for good\n"


def test_wandb_is_given_every_blocks_own_steps(wandb: FakeWandb, tmp_path: Path) -> None:
    (tracker,) = make_trackers(run(tmp_path, wandb=True))
    tracker.log(row(7))
    tracker.log_evaluation(EVALUATION, 0.75)
    tracker.close()
    assert wandb.metrics["block2/*"] == "block2/step" and wandb.metrics["accuracy/*"] == "epoch"
    assert wandb.metrics["throughput/samples_per_s"] == "block3/step"
    assert [one.get("block2/step") or one.get("block3/step") or one.get("epoch") for one in wandb.logged[:3]] == [7, 7, 2]
    assert wandb.logged[1]["throughput/samples_per_s"] == 100.0 and wandb.logged[-1] == {}


def test_a_run_that_goes_on_in_its_folder_goes_on_in_its_run_at_wandb(wandb: FakeWandb, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for folder in (tmp_path, tmp_path, tmp_path / "other"):
        make_trackers(run(folder, wandb=True))
    first, second, other = wandb.inits
    assert first["id"] == second["id"] == (tmp_path / ID).read_text(encoding="utf-8") != other["id"]
    assert {one["resume"] for one in wandb.inits} == {"allow"}


@pytest.mark.parametrize("is_configured", [True, False])
def test_project_entity_group_and_tags_come_from_the_configuration_or_the_environment(
    is_configured: bool, wandb: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    keys: dict[str, Any] = {"wandb_entity": "lab", "wandb_group": "seeds", "wandb_tags": ("a", "b"), "wandb_project": "ours"}
    make_trackers(run(tmp_path, wandb=True, **(keys if is_configured else {})))
    found = {name: wandb.inits[0][name] for name in ("project", "entity", "group", "tags")}
    ours = {"project": "ours", "entity": "lab", "group": "seeds", "tags": ["a", "b"]}
    # None: their client reads its own variables.
    assert found == (ours if is_configured else {"project": "theirs", "entity": None, "group": None, "tags": None})


def test_without_a_key_it_is_offline_and_said_once(
    wandb: FakeWandb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trackers(run(tmp_path, wandb=True))
    assert [one["mode"] for one in wandb.inits] == ["offline"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "Weights & Biases is offline: there is no API key for https://api.wandb.ai" in line
    assert line.endswith(f"upload later: wandb sync {tmp_path}/wandb/offline-run-*")


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_mode_that_is_asked_for_is_taken_without_a_word(
    mode: str, wandb: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    make_trackers(run(tmp_path, wandb=True))
    assert [one["mode"] for one in wandb.inits] == [mode] and capsys.readouterr().err == ""


@pytest.mark.parametrize("is_silent", [True, False])
def test_without_a_network_it_is_offline_within_seconds(
    is_silent: bool,
    wandb: FakeWandb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listening, url = silent_server()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setattr("greedypipe.launch.reporting.trackers.server.ANSWER_S", 0.5)
    if not is_silent:
        listening.close()
    started = time.monotonic()
    make_trackers(run(tmp_path, wandb=True))
    assert time.monotonic() - started < 3 and [one["mode"] for one in wandb.inits] == ["offline"]
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{url} does not answer within 0.5 s; upload later: wandb sync {tmp_path}" in line
    listening.close()


def test_a_client_that_cannot_go_online_goes_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeWandb(broken=("online",))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(Server, "problem", lambda server: "")
    make_trackers(run(tmp_path, wandb=True))
    assert [one["mode"] for one in fake.inits] == ["offline"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "is offline: RuntimeError: Error communicating with wandb process for 20 s; upload later" in line


def test_a_server_of_ones_own_has_a_key_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".netrc").write_text(f"machine wandb.lab:8080\n  login user\n  password {KEY}\n", encoding="utf-8")
    (home / ".netrc").chmod(0o600)
    assert not Server.configured().has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.lab:8080")
    assert Server.configured().has_key()
    monkeypatch.delenv("WANDB_BASE_URL")
    (home / ".config" / "wandb").mkdir(parents=True)
    (home / ".config" / "wandb" / "settings").write_text("[default]\nbase_url = https://wandb.lab:8080\n", encoding="utf-8")
    assert Server.configured() == Server("https://wandb.lab:8080")


def test_their_own_client_writes_offline_runs_of_one_id(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    for _ in range(2):
        (tracker,) = make_trackers(run(tmp_path, wandb=True))
        tracker.log(row(4))
        tracker.log_evaluation(EVALUATION, 0.75)
        tracker.close()
    found = list((tmp_path / "wandb").glob("offline-run-*"))
    number = (tmp_path / ID).read_text(encoding="utf-8")
    assert found and all(number in folder.name for folder in found)


def test_tensorboard_keeps_every_blocks_own_steps_and_the_hyperparameters(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tracker,) = make_trackers(run(tmp_path, tensorboard=True))
    tracker.log(row(4))
    tracker.log(row(8))
    tracker.log_evaluation(EVALUATION, 0.75)
    tracker.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("block2/loss")] == [4, 8]
    assert [event.value for event in events.Scalars("accuracy/best")] == [0.75]
    assert "_hparams_/experiment" in events.PluginTagToContent("hparams")
    assert "epochs: 3" in events.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()


def test_hyperparameters_are_flat_and_plain() -> None:
    settings = {"training": {"epochs": 3, "compile": None}, "partition": {"boundaries": ["conv2"]}}
    assert hyperparameters(settings) == {"training.epochs": 3, "partition.boundaries": "['conv2']"}
