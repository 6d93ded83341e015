"""When a checkpoint becomes complete: when every stage has saved its part, and not before."""

from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from greedypipe.launch.checkpoints.committer import Committer
from greedypipe.launch.checkpoints.manifest import checkpoints_of, complete_folders, name_of, read_manifest
from greedypipe.launch.checkpoints.resume import Origin
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.workers.block_files import write_block
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.records import EvaluationPart, Saved
from greedypipe.workers.telemetry.results import CheckpointCounts
from greedypipe.workers.telemetry.topics import checkpoint_of, evaluation_of


def make(*overrides: str) -> Plan:
    tiny = ["model.name=mlp", "model.hidden=16", "partition.blocks=2", "data.batch_size=64"]
    return make_plan(load_config(None, [*tiny, *overrides]), 2)


def tell(board: Board, plan: Plan, run: Path, batch_id: int, stages: tuple[int, ...] = (0, 1)) -> None:
    """What the stages' savers do."""
    for stage in stages:
        state = plan.blueprint.build_block(stage, torch.device("cpu")).state_dict() | {"step": batch_id}
        name, digest = write_block(checkpoints_of(run) / name_of(batch_id), state)
        board.post(checkpoint_of(name_of(batch_id)), stage, Saved({name: digest}, {stage: batch_id}))


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
    assert committer.counts() == CheckpointCounts(complete=1, incomplete=0)


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
    assert committer.counts() == CheckpointCounts(complete=0, incomplete=0)
