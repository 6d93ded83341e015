"""A run's folder has one owner, for as long as that one lives."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from greedypipe.launch.checkpoints.folder_lock import LOCK, FolderLock
from greedypipe.launch.checkpoints.run_folder import claim_folder
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.sections import RunConfig
from greedypipe.workers.telemetry.results import Failure, RunEnd
from greedypipe.workers.telemetry.summary_file import write_summary
from tests.records import make_summary

OWNER = """
import os, sys, time
from pathlib import Path
from greedypipe.launch.checkpoints.folder_lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    {more}
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


@contextmanager
def owner(folder: Path, more: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock."""
    command = [sys.executable, "-c", OWNER.format(more=more), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def test_a_folder_whose_owner_lives_is_refused_in_one_line_and_free_when_it_is_killed(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        with pytest.raises(ConfigError) as refusal, FolderLock(tmp_path, wait_s=0.1):
            pytest.fail("taken")
        assert str(refusal.value).startswith(f"run.folder: {tmp_path} belongs to a run that is alive")
        assert f"process {process.pid} on " in str(refusal.value) and len(str(refusal.value).splitlines()) == 1
        process.send_signal(signal.SIGKILL)
        with FolderLock(tmp_path):
            assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_child_of_the_owner_does_not_hold_the_folder(tmp_path: Path) -> None:
    fork = "child = os.fork()\n    if not child: time.sleep(60)\n    (Path(sys.argv[1]) / 'child').write_text(str(child))"
    with owner(tmp_path, fork) as process:
        process.kill()
        process.wait()
        with FolderLock(tmp_path):
            os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_a_lock_is_free_again_when_it_is_left(tmp_path: Path) -> None:
    for _ in range(2):
        with FolderLock(tmp_path, wait_s=0):
            pass


def refused(*arguments: object) -> None:
    raise OSError(95, "Operation not supported")


def full(*arguments: object) -> int:
    raise OSError(28, "No space left on device")


def test_where_the_file_system_keeps_no_locks_that_is_said_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "flock", refused)
    with FolderLock(tmp_path), FolderLock(tmp_path):
        pass
    said = capsys.readouterr().err.splitlines()
    assert said == [f"greedypipe: {tmp_path} cannot be locked (Operation not supported): keep other runs out of it"] * 2


def test_a_full_disk_does_not_keep_a_folder_from_being_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", full)
    with FolderLock(tmp_path), pytest.raises(ConfigError), FolderLock(tmp_path, wait_s=0):
        pass


def claim(parent: Path) -> Path:
    return claim_folder(RunConfig(run={"folder": str(parent), "name": "mine"}))


def failed(folder: Path) -> None:
    write_summary(folder, Failure(RunEnd.FAILED, "out of memory"))


@pytest.mark.parametrize("left", [lambda folder: None, failed, lambda folder: (folder / "metrics").mkdir()])
def test_a_folder_whose_run_ended_before_it_trained_can_be_claimed_again(
    left: Callable[[Path], None], tmp_path: Path
) -> None:
    with FolderLock(claim(tmp_path)):
        left(tmp_path / "mine")
    assert claim(tmp_path) == tmp_path / "mine"


def trained(folder: Path) -> None:
    (folder / "metrics").mkdir()
    (folder / "metrics" / "stage0.jsonl").write_text("{}\n")


@pytest.mark.parametrize(
    "left",
    [
        trained,
        lambda folder: (folder / "notes.txt").write_text("mine"),
        lambda folder: write_summary(folder, make_summary()),
        lambda folder: (folder / "summary.json").write_text("hello"),
    ],
)
def test_a_folder_with_anything_of_value_is_not_claimed(left: Callable[[Path], None], tmp_path: Path) -> None:
    with FolderLock(claim(tmp_path)):
        left(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"run\.name: .*mine exists already"):
        claim(tmp_path)


def test_a_folder_that_is_no_runs_gets_no_lock(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        claim(tmp_path)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_run_of_the_same_name_that_is_alive_is_named(tmp_path: Path) -> None:
    with owner(claim(tmp_path)), pytest.raises(ConfigError, match="belongs to a run that is alive"):
        claim(tmp_path)
