"""What makes a checkpoint complete, which one is taken, and which are removed."""

import hashlib
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

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
    parse_manifest,
    read_manifest,
)
from greedypipe.launch.checkpoints.retention import own_history, prune, set_aside
from greedypipe.launch.checkpoints.trained_network import find_checkpoint
from greedypipe.workers.block_files import FINAL, write_block
from tests.unit.tiny import make_blocks


def save(
    run: Path, batch_id: int, accuracy: float | None = None, name: str = "", config: dict[str, Any] | None = None
) -> Path:
    folder = checkpoints_of(run) / (name or name_of(batch_id))
    files = dict(write_block(folder, block.state_dict() | {"turn": batch_id}) for block in make_blocks(2))
    whole = {"partition": {"blocks": 2}} | (config or {})
    commit(folder, Manifest(batch_id, {0: batch_id, 1: batch_id}, files, accuracy, whole, {}))
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
    (line,) = said
    assert complaint in line and line.startswith("greedypipe: ") and newer.name in line


def test_a_checkpoint_of_an_earlier_layout_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = save(tmp_path, 8, config={"loss": {"name": "predsim"}})
    for read in (read_manifest, lambda folder: newest_valid(tmp_path, pytest.fail)):
        with pytest.raises(Outdated, match=f"{folder.name} was written by greedypipe 0.1") as refusal:
            read(folder)
        assert len(str(refusal.value).splitlines()) == 1


def test_without_a_manifest_a_folder_does_not_count(tmp_path: Path) -> None:
    (save(tmp_path, 4) / MANIFEST).unlink()
    assert newest_valid(tmp_path, pytest.fail) is None and complete_folders(tmp_path) == []


def prune_all(run: Path, keep: int) -> None:
    prune(run, keep, own_history(run, 10))


def test_the_newest_and_the_most_accurate_and_the_end_are_kept(tmp_path: Path) -> None:
    for batch_id, accuracy in ((2, 0.2), (4, 0.9), (6, 0.4), (8, None), (10, 0.5)):
        save(tmp_path, batch_id, accuracy)
    save(tmp_path, 1, name=FINAL)
    prune_all(tmp_path, 2)
    assert names(tmp_path) == [name_of(4), name_of(8), name_of(10), FINAL]


def test_what_was_never_completed_goes_when_a_newer_one_is_complete(tmp_path: Path) -> None:
    (save(tmp_path, 4) / MANIFEST).unlink()
    save(tmp_path, 6)
    (save(tmp_path, 8) / MANIFEST).unlink()
    prune_all(tmp_path, 3)
    assert names(tmp_path) == [name_of(6), name_of(8)]


def test_nothing_is_removed_that_the_run_has_not_written(tmp_path: Path) -> None:
    for batch_id in (2, 4, 6, 8):
        save(tmp_path, batch_id)
    elsewhere = save(tmp_path / "elsewhere", 3)
    (checkpoints_of(tmp_path) / name_of(3)).symlink_to(elsewhere)
    (checkpoints_of(tmp_path) / name_of(1)).mkdir()
    (checkpoints_of(tmp_path) / name_of(1) / "notes.txt").write_text("mine")
    (checkpoints_of(tmp_path) / name_of(2) / "notes.txt").write_text("mine")
    (checkpoints_of(tmp_path) / name_of(5)).mkdir()
    (checkpoints_of(tmp_path) / name_of(5) / MANIFEST).write_text('{"of": "another program"}')
    (checkpoints_of(tmp_path) / "notes").mkdir()
    (checkpoints_of(tmp_path) / "notes.txt").write_text("mine")
    # The run went on from 6: what is newer is not on its way.
    prune(tmp_path, 1, own_history(tmp_path, 6))
    kept = [name_of(1), name_of(2), name_of(3), name_of(5), name_of(6), name_of(8), "notes", "notes.txt"]
    assert names(tmp_path) == kept
    assert [path.name for path in (checkpoints_of(tmp_path) / name_of(2)).iterdir()] == ["notes.txt"]
    assert read_manifest(elsewhere).batch_id == 3


def test_a_run_that_begins_anew_owns_nothing_that_is_there(tmp_path: Path) -> None:
    save(tmp_path, 4)
    prune(tmp_path, 1, own_history(tmp_path, None))
    assert names(tmp_path) == [name_of(4)]


def test_what_cannot_be_removed_does_not_keep_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for batch_id in (2, 4, 6):
        save(tmp_path, batch_id)
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == name_of(2):
            raise PermissionError(13, "Permission denied", str(path))
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(PermissionError):
        prune(tmp_path, 1, own_history(tmp_path, 6))
    assert names(tmp_path) == [name_of(2), name_of(6)]


def test_a_damaged_checkpoint_gets_a_name_of_its_own(tmp_path: Path) -> None:
    for expected in (f"{name_of(4)}.damaged", f"{name_of(4)}.damaged-2"):
        truncate(save(tmp_path, 4) / MANIFEST)
        assert set_aside(checkpoints_of(tmp_path) / name_of(4)) == f"set aside as {expected}"
    assert complete_folders(tmp_path) == []


def resigned(folder: Path, **changes: Any) -> None:
    """A manifest whose own digest is right, whatever else it says."""
    commit(folder, replace(parse_manifest(folder), **changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"batch_id": 70}, "it is of batch 70"),
        ({"files": {}}, "does not name the files of 2 blocks"),
        ({"steps": {0: 8}}, "does not have the steps of 2 blocks"),
        ({"steps": {0: 8, 1: 7}}, "block1.pt is damaged: it holds block 1 at turn 8"),
        ({"config": {}}, "its configuration has no partition"),
        ({"config": {"partition": {"blocks": 3}}}, "does not name the files of 3 blocks"),
    ],
)
def test_a_manifest_that_cannot_be_true_is_not_believed(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    folder = save(tmp_path, 8)
    resigned(folder, **changes)
    with pytest.raises(Damaged, match=complaint) as refusal:
        read_manifest(folder)
    assert len(str(refusal.value).splitlines()) == 1


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize(
    "put",
    [
        lambda path: torch.save(Evil(), path),
        lambda path: path.write_bytes(pickle.dumps(Evil())),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"index": 1}, path),
        lambda path: path.write_text("hello"),
        lambda path: path.write_bytes(b""),
    ],
)
def test_a_file_that_holds_no_block_is_named_and_not_executed(
    put: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path, 8)
    put(folder / "block1.pt")
    digest = hashlib.sha256((folder / "block1.pt").read_bytes()).hexdigest()
    resigned(folder, files=parse_manifest(folder).files | {"block1.pt": digest})
    with pytest.raises(Damaged, match=r"block1\.pt holds no block") as refusal:
        read_manifest(folder)
    assert len(str(refusal.value).splitlines()) == 1 and not Path("pwned").exists()


def test_a_changed_manifest_also_names_the_files_that_hold_no_block(tmp_path: Path) -> None:
    folder = save(tmp_path, 8)
    (folder / "block1.pt").write_text("hello")
    truncate(folder / MANIFEST)
    with pytest.raises(Damaged, match=r"manifest\.json .*; .*block1\.pt holds no block"):
        read_manifest(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_checkpoint_that_is_not_finite_is_none(value: float, tmp_path: Path) -> None:
    folder = save(tmp_path, 8)
    state = make_blocks(2)[1].state_dict() | {"turn": 8}
    next(iter(state["layers"].values())).view(-1)[0] = value
    resigned(folder, files=parse_manifest(folder).files | dict([write_block(folder, state)]))
    with pytest.raises(Damaged, match=r"block1\.pt cannot be used: .* is not finite"):
        read_manifest(folder)


def test_the_end_of_a_replay_run_is_newer_than_marks_behind_its_last_step(tmp_path: Path) -> None:
    end = save(tmp_path, 8, name=FINAL)
    # Stage 0 sends batches for as long as any block has steps left.
    late = save(tmp_path, 11)
    files = dict(write_block(late, block.state_dict() | {"turn": 7}) for block in make_blocks(2))
    resigned(late, steps={0: 7, 1: 7}, files=files)
    assert complete_folders(tmp_path) == [end, late]
    assert find_checkpoint(tmp_path) == end
    truncate(end / "block0.pt")
    assert find_checkpoint(tmp_path) == late
