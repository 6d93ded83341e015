"""When a checkpoint becomes complete: when every stage has saved its part, and not before."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch.distributed import HashStore

from greedypipe.launch.checkpoints.committer import Committer
from greedypipe.launch.checkpoints.manifest import checkpoints_of, complete_folders, name_of, read_manifest
from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.workers.block_files import FINAL, EndNotSaved, write_block
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.records import EvaluationPart, Saved
from greedypipe.workers.telemetry.results import CheckpointCounts
from greedypipe.workers.telemetry.topics import checkpoint_of, evaluation_of


def make(*overrides: str) -> Plan:
    tiny = ["model.name=mlp", "model.hidden=16", "partition.blocks=2", "data.batch_size=64"]
    return make_plan(load_config(None, [*tiny, *overrides]), 2)


def tell(
    board: Board, plan: Plan, run: Path, batch_id: int, stages: tuple[int, ...] = (0, 1), name: str | None = None
) -> None:
    """What the stages' savers do."""
    folder = name or name_of(batch_id)
    for stage in stages:
        state = plan.blueprint.build_block(stage, torch.device("cpu")).state_dict() | {"turn": batch_id}
        file, digest = write_block(checkpoints_of(run) / folder, state)
        board.post(checkpoint_of(folder), stage, Saved({file: digest}, {stage: batch_id}))


def test_a_checkpoint_is_complete_when_all_stages_have_saved(tmp_path: Path) -> None:
    plan, board = make(), Board(HashStore(), 2)
    with Committer(board, plan, Origin(tmp_path), lambda: None) as committer:
        for batch_id in (10, 20):
            committer.expect(name_of(batch_id), batch_id)
        tell(board, plan, tmp_path, 10)
        tell(board, plan, tmp_path, 20, stages=(1,))
    (only,) = complete_folders(tmp_path)
    manifest = read_manifest(only)
    assert (manifest.batch_id, manifest.steps) == (10, {0: 10, 1: 10})
    assert manifest.config == plan.config.model_dump(mode="json")
    assert committer.counts() == CheckpointCounts(complete=1, incomplete=1)


def test_what_was_evaluated_is_kept_before_a_checkpoint_is_complete(tmp_path: Path) -> None:
    plan, board, complete = make(), Board(HashStore(), 2), list[int]()
    with Committer(board, plan, Origin(tmp_path), lambda: complete.append(len(complete_folders(tmp_path)))) as committer:
        committer.expect(name_of(10), 10)
        tell(board, plan, tmp_path, 10)
    assert complete == [0] and len(complete_folders(tmp_path)) == 1


def test_one_that_a_stage_could_not_save_is_said_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, board = make(), Board(HashStore(), 2)
    with Committer(board, plan, Origin(tmp_path), lambda: None) as committer:
        committer.expect(name_of(10), 10)
        tell(board, plan, tmp_path, 10, stages=(0,))
        board.post(checkpoint_of(name_of(10)), 1, Saved(failure="OSError: no space left"))
    assert complete_folders(tmp_path) == [] and committer.counts() == CheckpointCounts(complete=0, incomplete=1)
    assert "checkpoint batch-00000010 is incomplete, training goes on: stage 1: OSError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("policy", "batch_id", "accuracy"), [("fifo", 23, 0.75), ("fifo", 24, None), ("fifo", 46, None), ("replay", 23, None)]
)
def test_the_accuracy_is_that_of_an_evaluation_of_the_same_parameters(
    policy: str, batch_id: int, accuracy: float | None, tmp_path: Path
) -> None:
    plan, board = make(f"buffers.policy={policy}"), Board(HashStore(), 2)
    assert plan.blueprint.steps_per_epoch == 23
    for rank, ensemble in enumerate((None, 16)):
        board.post(evaluation_of(1), rank, EvaluationPart(1, 20, {rank: 10 + 5 * rank}, ensemble))
    with Committer(board, plan, Origin(tmp_path), lambda: None) as committer:
        committer.expect(name_of(batch_id), batch_id)
        tell(board, plan, tmp_path, batch_id)
    assert read_manifest(complete_folders(tmp_path)[0]).accuracy == accuracy


def test_a_run_that_fails_is_not_hidden_by_a_store_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, board = make(), Board(HashStore(), 2)

    def gone(topic: object) -> bool:
        raise RuntimeError("the store is gone")

    with pytest.raises(ConnectionError), Committer(board, plan, Origin(tmp_path), lambda: None) as committer:
        monkeypatch.setattr(board, "complete", gone)
        committer.expect(name_of(10), 10)
        raise ConnectionError("stage 1")
    assert committer.counts() == CheckpointCounts(complete=0, incomplete=1)


def test_an_error_while_tidying_is_not_a_failed_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, board = make("checkpoint.keep=1"), Board(HashStore(), 2)
    monkeypatch.setattr(Path, "rmdir", Mock(side_effect=PermissionError(13, "Permission denied", "batch")))
    with Committer(board, plan, Origin(tmp_path), lambda: None) as committer:
        for batch_id in (10, 20):
            committer.expect(name_of(batch_id), batch_id)
            tell(board, plan, tmp_path, batch_id)
    assert committer.counts() == CheckpointCounts(complete=2, incomplete=0)
    assert "a checkpoint that is not needed stays: " in capsys.readouterr().err


def test_what_is_left_of_a_failed_checkpoint_is_removed(tmp_path: Path) -> None:
    plan, board = make(), Board(HashStore(), 2)
    with Committer(board, plan, Origin(tmp_path), lambda: None) as committer:
        committer.expect(name_of(10), 10)
        tell(board, plan, tmp_path, 10, stages=(0,))
        board.post(checkpoint_of(name_of(10)), 1, Saved(failure="block 1: fc1.weight is not finite"))
    assert list(checkpoints_of(tmp_path).iterdir()) == []


def test_checkpoints_of_a_run_that_began_anew_do_not_count_what_was_there(tmp_path: Path) -> None:
    plan, board = make("checkpoint.keep=1"), Board(HashStore(), 2)
    for began_at, batch_ids in ((None, (50, 10)), (10, (20,))):
        checkpoint = checkpoints_of(tmp_path) / name_of(began_at) if began_at else None
        manifest = read_manifest(checkpoint) if checkpoint else None
        for batch_id in batch_ids:
            with Committer(board, plan, Origin(tmp_path, checkpoint, manifest), lambda: None) as committer:
                committer.expect(name_of(batch_id), batch_id)
                tell(board, plan, tmp_path, batch_id)
    # 50 is of another life of this folder: it neither counts nor goes.
    assert [folder.name for folder in complete_folders(tmp_path)] == [name_of(50), name_of(20)]


@pytest.mark.parametrize("damage", ["a stage", "the manifest"])
def test_an_end_that_cannot_be_completed_fails_the_run(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, board = make(), Board(HashStore(), 2)
    with pytest.raises(EndNotSaved, match=r"final cannot be completed: .*No space left on device"):
        with Committer(board, plan, Origin(tmp_path), lambda: None) as committer:
            tell(board, plan, tmp_path, 230, name=FINAL)
            if damage == "a stage":
                board.post(checkpoint_of(FINAL), 1, Saved(failure="No space left on device"))
            else:
                monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
            committer.expect(FINAL, 230)
        committer.check_saved(FINAL)


def test_a_mark_that_a_stage_never_saved_is_not_said_to_be_saved(tmp_path: Path) -> None:
    plan, board = make(), Board(HashStore(), 2)
    with Committer(board, plan, Origin(tmp_path), lambda: None) as committer:
        committer.expect(name_of(10), 10)
        tell(board, plan, tmp_path, 10, stages=(0,))
    with pytest.raises(EndNotSaved, match="batch-00000010 cannot be completed: a stage has not saved its part"):
        committer.check_saved(name_of(10))
