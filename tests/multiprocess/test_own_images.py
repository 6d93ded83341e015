"""A folder of one's own images from the first headline to a plain torch script: every kind of file, and the same classes all
the way."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from greedypipe.launch import evaluate, export
from greedypipe.launch.checkpoints.manifest import parse_manifest
from greedypipe.launch.checkpoints.resume import find_origin
from greedypipe.launch.checkpoints.trained_network import find_checkpoint
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.reporting.tables import headline
from tests.multiprocess.harness import run_pipeline
from tests.pictures import CLASSES, KINDS, write_part, write_png_header

ROOT = Path(__file__).resolve().parents[2]
RUN = ["data.name=image_folder", "data.image_size=8", "data.channels=1", "data.batch_size=15", "data.augment=none"]
RUN += ["model.name=mlp", "model.hidden=32", "partition.blocks=2", "training.epochs=12", "optimizer.lr=0.05"]
RUN += ["data.mean=[0.4]", "data.std=[0.3]", "checkpoint.interval_steps=100", "faults.timeout_s=30"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes in every kind of file; 90 for training, 30 for validation, 30 for the test."""
    root = tmp_path_factory.mktemp("images")
    for part, copies in (("train", 3), ("val", 1), ("test", 1)):
        write_part(root / part, CLASSES, copies)
    shutil.copytree(root / "test/top", root / "train/.thumbnails")
    (root / "train/top/._0.png").write_bytes(b"\0\5")
    return root


@pytest.fixture(scope="module")
def outcome(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    result = run_pipeline([*RUN, f"data.root={images}"], 2, tmp_path_factory.mktemp("run"))
    assert result.exit_codes == [0, 0], result.printed
    return result


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def call(main: Callable[[], None], *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        main()

    return call


def test_damaged_and_huge_files_are_named_before_anything_starts(images: Path, tmp_path: Path) -> None:
    root = shutil.copytree(images, tmp_path / "spoilt")
    write_png_header(root / "train/left/huge.png", 40_000, 40_000)
    (root / "val/top/cut.jpg").write_bytes(b"\xff\xd8\xff")
    overrides = [override for override in RUN if not override.startswith("data.channels")]
    with pytest.raises(ConfigError, match=r"left/huge\.png: .*; cannot read the image .*val/top/cut\.jpg") as refusal:
        make_plan(load_config(None, [*overrides, f"data.root={root}"]), 2)
    assert len(str(refusal.value).splitlines()) == 1


def test_the_headline_and_the_checkpoint_say_what_the_data_are(images: Path, outcome: Outcome) -> None:
    plan = make_plan(load_config(str(outcome.folder / "config.yaml"), []), 2)
    assert "(90 + 30 images 1 x 8 x 8)" in headline(plan)
    assert "3 classes: bottom (30), left (30), top (30); pixels minus 0.4, over 0.3" in headline(plan)
    assert "evaluated on 30 validation images; 30 test images are left" in headline(plan)
    assert headline(plan).splitlines()[1] in "\n".join(outcome.printed)
    saved = parse_manifest(find_checkpoint(outcome.folder))
    assert saved.data == plan.data and saved.validated == outcome.summary["accuracy"]["final"] == 1.0


@pytest.mark.parametrize("suffix", ["pt2", "pt"])
def test_a_plain_torch_script_names_every_test_image(
    suffix: str,
    images: Path,
    outcome: Outcome,
    tmp_path: Path,
    call: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(export.main, str(outcome.folder), "--out", str(tmp_path / "new" / f"model.{suffix}"))
    about = json.loads((tmp_path / "new/model.json").read_text(encoding="utf-8"))
    assert about["file"] == f"model.{suffix}" and about["classes"] == list(CLASSES)
    assert (about["input_shape"], about["mean"], about["std"], about["full_scale"]) == ([1, 8, 8], [0.4], [0.3], 255)
    if suffix != "pt2":
        return
    assert "import greedypipe" not in (ROOT / "examples/predict.py").read_text()
    paths = sorted(map(str, (images / "test").rglob("*.*")))
    monkeypatch.setattr(sys, "argv", ["predict.py", str(tmp_path / "new/model.json"), *paths])
    capsys.readouterr()
    runpy.run_path(str(ROOT / "examples/predict.py"), run_name="__main__")
    printed = capsys.readouterr().out
    named = [line.split("\t") for line in printed.splitlines()]
    assert [path for path, *_ in named] == paths and len(paths) == 3 * len(KINDS)
    assert [name for _, name, _ in named] == [Path(path).parent.name for path in paths]


def test_another_folder_is_measured_by_the_names_of_its_classes(
    outcome: Outcome, tmp_path: Path, call: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first class is the network's last but one, and it has no parts."""
    write_part(tmp_path / "others", CLASSES[1:], 1)
    call(evaluate.main, "--data", str(tmp_path / "others"), str(outcome.folder), "--out", str(tmp_path / "v1.0"))
    found = json.loads((tmp_path / "v1.0.json").read_text())
    assert found["class_samples"] == {"bottom": 0, "left": 10, "top": 10}
    assert [one["accuracy"] for one in found["exits"]] == [1.0, 1.0]
    assert "note: no test sample of the classes bottom" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        call(evaluate.main, str(outcome.folder), "--out", str(tmp_path / "v1.0"))
    assert "v1.0.json exists already" in capsys.readouterr().err
    (tmp_path / "others/left").rename(tmp_path / "others/right")
    with pytest.raises(SystemExit):
        call(evaluate.main, str(outcome.folder), "--data", str(tmp_path / "others"), "--out", str(tmp_path / "no"))
    said = capsys.readouterr().err
    assert "class folders besides the known classes bottom, left, top: right" in said and len(said.splitlines()) == 1


def test_the_test_part_is_measured_and_no_earlier_result_is_replaced(
    outcome: Outcome, call: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("evaluation", "evaluation-2"):
        call(evaluate.main, str(outcome.folder))
        found = json.loads((outcome.folder / f"{name}.json").read_text())
        assert found["class_samples"] == dict.fromkeys(CLASSES, 10) and found["exits"][-1]["accuracy"] == 1.0
    with pytest.raises(SystemExit):
        call(evaluate.main, str(outcome.folder), "partition.boundaries=[fc2]")
    assert "the checkpoint has no trained head behind fc1" in capsys.readouterr().err


def more_images(root: Path) -> None:
    for number in range(2):
        shutil.copy(root / "train/left/rgb 0.png", root / f"train/left/new{number}.png")


def another_name(root: Path) -> None:
    for part in ("train", "val", "test"):
        (root / part / "top").rename(root / part / "a_top")


@pytest.mark.parametrize(
    ("change", "complaint"), [(more_images, "got 92 train samples, the checkpoint has 90"), (another_name, "new: a_top")]
)
def test_changed_data_are_refused_when_a_run_is_resumed(
    change: Callable[[Path], None], complaint: str, images: Path, outcome: Outcome, tmp_path: Path
) -> None:
    root = shutil.copytree(images, tmp_path / "changed")
    overrides = [*RUN, f"run.folder={tmp_path}", f"data.root={root}", "training.epochs=13"]
    same = find_origin(str(outcome.folder), make_plan(load_config(None, overrides), 2), None, lambda text: None)
    assert same.batch_id == 12 * 6
    change(root)
    with pytest.raises(ConfigError, match=complaint):
        find_origin(str(outcome.folder), make_plan(load_config(None, overrides), 2), None, lambda text: None)
