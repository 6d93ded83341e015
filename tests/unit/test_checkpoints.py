"""What makes a checkpoint complete, which one is taken, and which are removed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from greedypipe.launch.checkpoints.manifest import (
    MANIFEST,
    Damaged,
    Manifest,
    Outdated,
    checkpoints_of,
    commit,
    complete_folders,
    name_of,
    newest_valid,
    prune,
    read_manifest,
)
from greedypipe.workers.block_files import FINAL, write_block
from greedypipe.workers.data.info import DataInfo
from tests.unit.tiny import make_blocks


def save(
    run: Path, batch_id: int, accuracy: float | None = None, name: str = "", config: dict[str, Any] | None = None
) -> Path:
    folder = checkpoints_of(run) / (name or name_of(batch_id))
    files = dict(write_block(folder, block.state_dict()) for block in make_blocks(2))
    commit(folder, Manifest(batch_id, {0: batch_id, 1: batch_id}, files, accuracy, config or {}, {}))
    return folder


def names(run: Path) -> list[str]:
    return sorted(path.name for path in checkpoints_of(run).iterdir())


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = read_manifest(save(tmp_path, 8, 0.5))
    assert (manifest.batch_id, manifest.steps, manifest.accuracy) == (8, {0: 8, 1: 8}, 0.5)
    assert sorted(manifest.files) == ["block0.pt", "block1.pt"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: truncate(folder / "block1.pt"), "block1.pt is damaged"),
        (lambda folder: flip(folder / "block0.pt"), "block0.pt is damaged"),
        (lambda folder: (folder / "block1.pt").unlink(), "block1.pt is missing"),
        (lambda folder: truncate(folder / MANIFEST), "manifest.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    damage: Callable[[Path], None], complaint: str, tmp_path: Path
) -> None:
    older, newer = save(tmp_path, 4), save(tmp_path, 8)
    damage(newer)
    with pytest.raises(Damaged, match=complaint):
        read_manifest(newer)
    said: list[str] = []
    found = newest_valid(tmp_path, said.append)
    assert found is not None and found[0] == older and found[1].batch_id == 4
    assert complaint in "".join(said) or not said  # an unreadable manifest has no place in the order


def test_a_checkpoint_of_an_earlier_layout_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = save(tmp_path, 8, config={"loss": {"name": "predsim"}})
    for read in (read_manifest, lambda folder: newest_valid(tmp_path, pytest.fail)):
        with pytest.raises(Outdated, match=f"{folder.name} was written by greedypipe 0.1") as refusal:
            read(folder)
        assert len(str(refusal.value).splitlines()) == 1


def test_without_a_manifest_a_folder_does_not_count(tmp_path: Path) -> None:
    (save(tmp_path, 4) / MANIFEST).unlink()
    assert newest_valid(tmp_path, pytest.fail) is None and complete_folders(tmp_path) == []


@pytest.mark.parametrize(("validation", "best"), [(5, [name_of(4)]), (0, [])])
def test_the_newest_and_the_most_accurate_on_a_validation_part_and_the_end_are_kept(
    validation: int, best: list[str], tmp_path: Path
) -> None:
    data = DataInfo((1, 8, 8), ("a", "b"), 10, 5, (0.5,), (0.5,), validation_samples=validation)
    for batch_id, accuracy in ((2, 0.2), (4, 0.9), (6, 0.4), (8, None), (10, 0.5)):
        folder = save(tmp_path, batch_id, accuracy)
        commit(folder, replace(read_manifest(folder), data=data))
        assert read_manifest(folder).data == data
    save(tmp_path, 1, name=FINAL)
    prune(tmp_path, 2, spared=FINAL)
    assert names(tmp_path) == [*best, name_of(8), name_of(10), FINAL]


def test_what_was_never_completed_goes_when_a_newer_one_is_complete(tmp_path: Path) -> None:
    (save(tmp_path, 4) / MANIFEST).unlink()
    save(tmp_path, 6)
    (save(tmp_path, 8) / MANIFEST).unlink()
    prune(tmp_path, 3, spared=FINAL)
    assert names(tmp_path) == [name_of(6), name_of(8)]
