"""A run that is interrupted goes on where its last checkpoint was, with the bits of one that never was."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
import torch

from greedypipe.launch.checkpoints.manifest import complete_folders, read_manifest
from greedypipe.launch.on_host import local_run
from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.launch.recovery.exit_codes import REQUEUE
from greedypipe.workers.block_files import load_blocks
from tests.multiprocess.harness import TINY, assert_equal_states, exported, run_pipeline

RUN = [*TINY, "partition.blocks=4", "training.epochs=2", "checkpoint.interval_steps=3", "logging.interval_steps=2"]
FAULT = ["debug.fault=exit", "debug.fault_stage=1", "debug.fault_step=22", "debug.slow_stage=0", "debug.slow_factor=4"]
"""Slowed, so that some checkpoints are complete before it strikes, on any machine."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_pipeline(RUN, 2, tmp_path_factory.mktemp("uninterrupted"))


def go_on(outcome: Outcome, overrides: list[str], num_processes: int) -> Outcome:
    return local_run.run_pipeline(overrides, num_processes, outcome.folder, goes_on=True)


def heads(outcome: Outcome) -> list[dict[str, torch.Tensor]]:
    return [state["method"] for state in load_blocks(outcome.folder / "checkpoints" / "final")]


def test_checkpoints_do_not_change_a_run_and_the_newest_are_kept(uninterrupted: Outcome, tmp_path: Path) -> None:
    assert uninterrupted.exit_codes == [0, 0], uninterrupted.printed
    found = [read_manifest(folder) for folder in complete_folders(uninterrupted.folder)]
    # Marks at 3, 6 and so on, and the end; 12 steps are an epoch, with an evaluation.
    assert [manifest.batch_id for manifest in found] == [24, 21, 18, 15]
    assert found[0].accuracy == uninterrupted.summary["accuracy"]["final"]
    assert [manifest.accuracy is None for manifest in found] == [False, True, True, True]
    assert uninterrupted.summary["checkpoints"] == {"complete": 8, "incomplete": 0}
    # With a validation part an epoch has 11 steps, and the checkpoint behind the best evaluation is kept as well.
    fewer = run_pipeline([*RUN, "checkpoint.keep=1", "data.validation=100"], 1, tmp_path)
    assert [read_manifest(folder).batch_id for folder in complete_folders(fewer.folder)] == [22, 21, 11]
    without = run_pipeline([*RUN, "checkpoint.interval_steps=0"], 2, tmp_path)
    assert_equal_states(exported(without), exported(uninterrupted))


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_a_resumed_run_equals_an_uninterrupted_one_on_any_number_of_processes(
    num_processes: int, uninterrupted: Outcome, tmp_path: Path
) -> None:
    interrupted = run_pipeline([*RUN, *FAULT], 4, tmp_path)
    assert all(interrupted.exit_codes), interrupted.printed
    resumed = go_on(interrupted, RUN, num_processes)
    assert resumed.exit_codes == [0] * num_processes, resumed.printed
    assert "goes on at batch " in resumed.printed[0]
    assert resumed.summary["began_at_batch_id"] >= 3
    assert_equal_states(exported(resumed), exported(uninterrupted))
    for left, right in zip(heads(resumed), heads(uninterrupted), strict=True):
        assert_equal_states(left, right)
    assert [one["epoch"] for one in resumed.summary["evaluations"]] == [1, 2]
    assert resumed.summary["accuracy"] == uninterrupted.summary["accuracy"]
    steps = [record.step for record in resumed.records(0) if record.block == 0]
    assert steps == sorted(set(steps)) and steps[-1] == 24


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    uninterrupted: Outcome, tmp_path: Path
) -> None:
    interrupted = run_pipeline([*RUN, *FAULT], 2, tmp_path)
    newest, before = complete_folders(interrupted.folder)[:2]
    content = (newest / "block2.pt").read_bytes()
    (newest / "block2.pt").write_bytes(content[: len(content) // 2])
    resumed = go_on(interrupted, RUN, 2)
    said = resumed.printed[0].replace("\n", "")
    assert f"{newest.name}/block2.pt is damaged" in said and f"of {before}" in said
    assert_equal_states(exported(resumed), exported(uninterrupted))


def test_another_cut_goes_on_with_its_layers_and_says_which_heads_are_fresh(uninterrupted: Outcome, tmp_path: Path) -> None:
    interrupted = run_pipeline([*RUN, *FAULT], 2, tmp_path)
    resumed = go_on(interrupted, [*RUN, "partition.blocks=2", "partition.boundaries=[conv3]"], 2)
    assert resumed.exit_codes == [0, 0], resumed.printed
    said = "".join(resumed.printed)
    assert "block 0: fresh head" in said and "block 1: fresh head" not in said
    assert resumed.summary["began_at_batch_id"] >= 3
    assert list(exported(resumed)) == list(exported(uninterrupted))


def test_replay_goes_on_with_every_blocks_own_steps(tmp_path: Path) -> None:
    replay = [*RUN, "buffers.policy=replay", "training.epochs=6", "debug.slow_stage=1", "debug.slow_factor=1.5"]
    interrupted = run_pipeline([*replay, "debug.fault=exit", "debug.fault_stage=0", "debug.fault_step=60"], 2, tmp_path)
    assert all(interrupted.exit_codes)
    resumed = go_on(interrupted, replay, 2)
    assert resumed.exit_codes == [0, 0], resumed.printed
    final = read_manifest(resumed.folder / "checkpoints" / "final")
    assert resumed.summary["began_at_batch_id"] > 0
    assert final.steps == dict.fromkeys(range(4), 72)
    # How well few steps of replay learn is chance; benchmarks.faults compares whole runs.
    assert resumed.summary["evaluations"][-1]["epoch"] == 6


def when_trained(outcome_folder: Path, act: Callable[[list[int]], None]) -> Thread:
    """Calls `act` with the ranks' processes as soon as the last stage has written its first record."""

    def wait() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            files = list(outcome_folder.glob("run*/metrics/stage1.jsonl"))
            if files and files[0].stat().st_size:
                break
            time.sleep(0.02)
        act(ranks_below(os.getpid()))

    thread = Thread(target=wait)
    thread.start()
    return thread


def ranks_below(pid: int) -> list[int]:
    """The processes that the fork server below `pid` has made."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = [int(child) for child in children.read_text().split()]
    return [int(rank) for child in below for rank in Path(f"/proc/{child}/task/{child}/children").read_text().split()]


def test_sigterm_saves_and_asks_to_be_started_again(tmp_path: Path) -> None:
    long = [*RUN, "training.epochs=10", "evaluation.every_epochs=10", "checkpoint.interval_steps=0"]
    thread = when_trained(tmp_path, lambda ranks: os.kill(ranks[-1], signal.SIGTERM))
    stopped = run_pipeline(long, 2, tmp_path)
    thread.join()
    assert stopped.exit_codes == [REQUEUE, REQUEUE], stopped.printed
    assert stopped.summary["status"] == "stopped" and "--resume auto" in stopped.printed[0]
    (only,) = complete_folders(stopped.folder)
    assert 0 < read_manifest(only).batch_id < 120
    resumed = go_on(stopped, long, 2)
    assert resumed.exit_codes == [0, 0], resumed.printed
    assert_equal_states(exported(resumed), exported(run_pipeline(long, 1, tmp_path)))
