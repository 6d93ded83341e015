"""Files that are always whole."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from greedypipe.workers.atomic import replacing, write_atomically, write_record


def test_a_reader_sees_the_old_content_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_writer_that_raises_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b"half of the n")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [True, False])
def test_only_what_must_survive_the_host_waits_for_the_disk(
    durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = Mock()
    monkeypatch.setattr(os, "fsync", sync)
    write_atomically(tmp_path / "file", "é", durable=durable)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "é"
    assert sync.call_count == (2 if durable else 0), "the file and its folder"


def test_a_write_that_fails_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"No space left on device: .*file'"):
        write_atomically(tmp_path / "file", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_training_can_do_without_never_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path / "new" / "file", "text")
    assert (tmp_path / "new" / "file").read_text() == "text"
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    write_record(tmp_path / "file", "text")
    assert capsys.readouterr().err == f"greedypipe: {tmp_path / 'file'} cannot be written: No space left on device\n"
