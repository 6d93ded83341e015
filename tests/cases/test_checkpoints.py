"""What happens to checkpoints and to a run's folder: damage, two owners, disks that are full or hang, NaN."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from greedypipe.launch.checkpoints.folder_lock import FolderLock
from greedypipe.launch.checkpoints.manifest import MANIFEST, checkpoints_of, complete_folders, name_of, read_manifest
from greedypipe.launch.checkpoints.resume import AUTOMATIC, find_origin
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.recovery.exit_codes import WRONG_CONFIGURATION
from tests.multiprocess.harness import assert_equal_states, exported

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "data.name=synthetic",
    "data.samples=320",
    "data.shape=[1,8,8]",
    "data.classes=3",
    "data.batch_size=8",
    "data.augment=none",
    "model.name=mlp",
    "model.depth=2",
    "model.hidden=16",
    "partition.blocks=2",
    "training.epochs=2",
    "faults.timeout_s=30",
)
"""80 steps of two blocks."""


def run(folder: Path, *overrides: str, processes: int = 2, goes_on: bool = False) -> Outcome:
    return run_pipeline([*SMALL, *overrides], processes, folder, goes_on=goes_on)


def struck_at(step: int, stage: int = 0, kind: str = "raise") -> list[str]:
    return [f"debug.fault={kind}", f"debug.fault_stage={stage}", f"debug.fault_step={step}"]


def lines(outcome: Outcome, start: str = "greedypipe: ") -> list[str]:
    return [line for text in outcome.printed for line in text.splitlines() if line.startswith(start)]


def test_weights_that_became_nan_are_in_no_checkpoint(tmp_path: Path) -> None:
    folder, every = tmp_path / "r", "checkpoint.interval_steps=2"
    first = run(folder, every, *struck_at(9, kind="nan"), processes=1)
    assert first.exit_codes == [1]
    assert [one.name for one in complete_folders(folder)] == [name_of(batch) for batch in (8, 6, 4)]
    assert any("checkpoint batch-00000010 is incomplete" in line and "is not finite" in line for line in lines(first))
    again = run(folder, every, processes=1, goes_on=True)
    assert again.exit_codes == [0], again.printed
    assert f"goes on at batch 8 of {checkpoints_of(folder) / name_of(8)}" in again.printed[0]


def test_a_damaged_checkpoint_does_not_hold_the_place_of_a_sound_one(tmp_path: Path) -> None:
    folder, often = tmp_path / "r", ["checkpoint.interval_steps=4", "checkpoint.keep=1"]
    run(folder, *often, *struck_at(22), processes=1)
    newest = checkpoints_of(folder) / name_of(20)
    os.truncate(newest / "block0.pt", 100)
    second = run(folder, *often, *struck_at(15), processes=1, goes_on=True)
    (line,) = [line for line in lines(second) if " is damaged" in line]
    assert "block0.pt is damaged" in line and line.endswith(f"set aside as {newest.name}.damaged")
    assert "the run begins anew" in second.printed[0]
    third = run(folder, *often, *struck_at(13), processes=1, goes_on=True)
    assert "goes on at batch 12 of " in third.printed[0]


def test_a_finished_run_that_is_resumed_keeps_its_figures(tmp_path: Path) -> None:
    first = run(tmp_path / "r")
    files = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.suffix in (".json", ".jsonl", ".pt")}
    again = run(tmp_path / "r", goes_on=True)
    assert first.exit_codes == again.exit_codes == [0, 0], again.printed
    assert "nothing to train: the run has finished" in again.printed[0]
    changed = [path.name for path, content in files.items() if path.read_bytes() != content]
    assert changed == []


def test_a_finished_run_that_goes_on_longer_keeps_its_end_until_the_next_one(tmp_path: Path) -> None:
    run(tmp_path / "r", "training.epochs=1")
    longer = run(tmp_path / "r", *struck_at(60, kind="exit"), goes_on=True)
    assert any(longer.exit_codes)
    (kept,) = complete_folders(tmp_path / "r")
    assert kept.name == name_of(40) and read_manifest(kept).batch_id == 40
    assert run(tmp_path / "r", goes_on=True).exit_codes == [0, 0]


@pytest.mark.parametrize("policy", ["fifo", "replay"])
def test_a_stage_that_dies_before_the_first_own_checkpoint_goes_on_where_the_run_began(policy: str, tmp_path: Path) -> None:
    run(tmp_path / "earlier", "training.epochs=1")
    common = [f"run.folder={tmp_path}", f"buffers.policy={policy}", "faults.policy=isolate", "logging.interval_steps=1"]
    outcomes = []
    for name, fault in (("calm", []), ("struck", struck_at(50, 1, "exit"))):
        plan = make_plan(load_config(None, [*SMALL, *common, f"run.name={name}"]), 2)
        folder = find_origin(str(tmp_path / "earlier"), plan, None, lambda text: None).folder
        outcomes.append(run(folder, *common, f"run.name={name}", *fault, goes_on=True))
        assert outcomes[-1].exit_codes == [0, 0], outcomes[-1].printed
    calm, struck = outcomes
    assert not [line for text in struck.printed for line in text.splitlines() if "anew" in line or "its beginning" in line]
    assert struck.records(1)[0].step > 40
    if policy == "fifo":
        assert_equal_states(exported(struck), exported(calm))


def test_a_run_that_is_alive_cannot_be_resumed(tmp_path: Path) -> None:
    folder, slow = tmp_path / "r", ["debug.slow_stage=0", "debug.slow_factor=20", "checkpoint.interval_steps=4"]
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(folder, *slow)))
    thread.start()
    deadline = time.monotonic() + 30
    while not complete_folders(folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    plan = make_plan(load_config(None, [*SMALL, *slow, f"run.folder={tmp_path}", "run.name=r"]), 2)
    for resume in (AUTOMATIC, None):
        with pytest.raises(ConfigError) as refusal:
            find_origin(resume, plan, None, pytest.fail)
        assert "belongs to a run that is alive (process " in str(refusal.value)
        assert len(str(refusal.value).splitlines()) == 1
    thread.join()
    assert outcomes[0].exit_codes == [0, 0], outcomes[0].printed
    steps = [record.step for record in outcomes[0].records(0) if record.block == 0]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_rank_that_finds_its_folder_taken_says_so_and_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    with FolderLock(tmp_path / "r"):
        refused = run(tmp_path / "r", goes_on=True)
    assert WRONG_CONFIGURATION in refused.exit_codes
    (line,) = lines(refused)
    assert "belongs to a run that is alive" in line and "Traceback" not in "".join(refused.printed)
    assert not (tmp_path / "r" / "summary.json").exists() and not (tmp_path / "r" / "config.yaml").exists()


@dataclass(frozen=True)
class HangingDisk:
    """A disk that answers one process no more from its second sync on."""

    rank: int

    def __call__(self, rank: int) -> None:
        if rank == self.rank:
            real, calls = os.fsync, [0]

            def fsync(descriptor: int) -> None:
                calls[0] += 1
                if calls[0] > 1:
                    time.sleep(1e6)
                real(descriptor)

            os.fsync = fsync


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stage_whose_disk_hangs_is_named(rank: int, tmp_path: Path) -> None:
    limits = ["faults.timeout_s=2", "faults.hang_timeout_s=2", "partition.blocks=3", "model.depth=3"]
    hung = run_pipeline(
        [*SMALL, *limits, "checkpoint.interval_steps=4"], 3, tmp_path / "r", timeout_s=30, enter=HangingDisk(rank)
    )
    (line,) = lines(hung)
    assert f"stage {rank}" in line, line
    assert all(code not in (None, 0, -9) for code in hung.exit_codes), hung.exit_codes


def can_mount() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


def run_on_small_disk(folder: Path, size: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A run of one process in a folder of a tmpfs of its own."""
    folder.mkdir()
    script = f'mount -t tmpfs -o size={size} none "{folder}"; "$@"; code=$?; ls -R "{folder}" >&2; exit $code'
    command = [sys.executable, str(ROOT / "launch" / "run.py"), *arguments, f"run.folder={folder}", "run.name=r"]
    return subprocess.run(
        ["unshare", "-m", "bash", "-c", script, "x", *command], capture_output=True, text=True, timeout=100, cwd=ROOT
    )


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs the right to mount")
@pytest.mark.parametrize("policy", ["restart", "isolate"])
def test_a_full_disk_costs_records_and_checkpoints_and_only_the_end_must_be_saved(policy: str, tmp_path: Path) -> None:
    size = [*SMALL, "training.epochs=6", "logging.interval_steps=1", "checkpoint.interval_steps=10"]
    ended = run_on_small_disk(tmp_path / "small", "64k", [*size, f"faults.policy={policy}"])
    said = [line for line in ended.stderr.splitlines() if line.startswith("greedypipe: ")]
    assert "epoch   6/6" in ended.stdout and "Traceback" not in ended.stderr, ended.stderr
    assert len([line for line in said if "stage0.jsonl cannot be written: No space left on device" in line]) == 1
    assert ended.returncode == 1 and "final" in said[-1] and "No space left on device" in said[-1], said


def test_half_written_checkpoints_are_one_line_each_in_order_of_time(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    run(folder, "checkpoint.interval_steps=4", "checkpoint.keep=5", *struck_at(30), processes=1)
    newest = complete_folders(folder)[:3]
    manifest = newest[0] / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:200])
    (newest[1] / "block1.pt").write_text("hello")
    (newest[2] / MANIFEST).write_text('{"written": "by another program"}')
    again = run(folder, processes=1, goes_on=True)
    assert again.exit_codes == [0], again.printed
    said = [line for line in lines(again) if "set aside" in line]
    assert [checkpoint.name in line for line, checkpoint in zip(said, newest, strict=True)] == [True] * 3
