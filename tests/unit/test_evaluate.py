"""What `greedypipe evaluate` does with its arguments and its files."""

from pathlib import Path

from greedypipe.launch.evaluate import _free_names


def test_an_earlier_evaluation_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run.v1"
    for stem in ("run.v1", "run.v1-2", "run.v1-3"):
        figures, picture = _free_names(out)
        assert (figures.name, picture.name) == (f"{stem}.json", f"{stem}.png")
        (picture if stem == "run.v1" else figures).write_text("mine")
