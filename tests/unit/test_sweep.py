"""The grid of a sweep and the table of what its runs came to; the launcher is a stand-in."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import sweep
from benchmarks.sweep import folder_of, grid


def test_the_grid_has_every_combination_and_lists_stay_whole() -> None:
    assert grid(["a.b=1,2", "c.d=x", "placement.replicas=1,[1,2,1]"]) == [
        ["a.b=1", "c.d=x", "placement.replicas=1"],
        ["a.b=1", "c.d=x", "placement.replicas=[1,2,1]"],
        ["a.b=2", "c.d=x", "placement.replicas=1"],
        ["a.b=2", "c.d=x", "placement.replicas=[1,2,1]"],
    ]
    assert grid([]) == [[]]


@pytest.mark.parametrize(("settings", "message"), [(["a.b"], "got 'a.b'"), (["a.b=1", "a.b=2"], "a.b comes twice")])
def test_a_malformed_grid_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(settings)


def test_no_two_combinations_share_a_folder(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path, one) for one in grid(["a.b=1,2", "c.d=[1,2],[1,3]"])]
    assert len(set(folders)) == 4 and all(folder.parent == tmp_path for folder in folders)


class StandIn:
    """Every second run fails."""

    def __init__(self, config: str, processes: int) -> None:
        self.asked: list[Path] = []

    def run(self, runs: dict[Path, list[str]]) -> None:
        for number, folder in enumerate(runs):
            if number % 2:
                (folder.parent / f"{folder.name}.log").write_text("noise\ngreedypipe: stage 1 died\n")
            else:
                folder.mkdir()
                accuracy = {"final": 0.5, "ensemble": 0.75}
                summary = {"status": "finished", "accuracy": accuracy, "samples_per_s": 123.4, "wall_s": 9.0}
                (folder / "summary.json").write_text(json.dumps(summary))


def test_one_table_shows_what_every_run_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "OneAfterAnother", StandIn)
    settings = ["optimizer.lr=0.1,0.2", "model.width=0.1"]
    monkeypatch.setattr(sys, "argv", ["sweep", "configs/digits.yaml", *settings, "--out", str(tmp_path)])
    sweep.main()
    text = capsys.readouterr().out
    assert "optimizer.lr" in text and "model.width" not in text, "what is the same everywhere is no column"
    assert "50.00" in text and "75.00" in text and "no summary: stage 1 died" in text
    runs = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    assert [run["status"] for run in runs] == ["finished", "no summary"]


def test_a_wrong_setting_is_said_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["optimizer.lr=0.1,fast", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["sweep", "configs/digits.yaml", *settings])
    with pytest.raises(SystemExit, match=r"greedypipe: command line: optimizer.lr: got 'fast'"):
        sweep.main()
    assert not (tmp_path / "out").exists()
