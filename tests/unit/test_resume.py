"""Where a run begins, and what it keeps of its records."""

import json
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from greedypipe.launch.checkpoints.manifest import Manifest, checkpoints_of, commit, name_of
from greedypipe.launch.checkpoints.resume import (
    AUTOMATIC,
    Origin,
    check_compatible,
    find_again,
    find_origin,
    resumed_plan,
)
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.workers.block_files import FINAL, write_block
from greedypipe.workers.telemetry.results import Failure, RunEnd
from greedypipe.workers.telemetry.summary_file import write_summary
from tests.records import make_summary


def make(tmp_path: Path, *overrides: str, stages: int = 2) -> Plan:
    tiny = ["model.name=mlp", "model.hidden=16", "partition.blocks=2", "data.batch_size=64"]
    return make_plan(load_config(None, [*tiny, f"run.folder={tmp_path / 'runs'}", *overrides]), stages)


def save(plan: Plan, run: Path, batch_id: int) -> Path:
    folder = checkpoints_of(run) / name_of(batch_id)
    blocks = [plan.blueprint.build_block(index, torch.device("cpu")) for index in range(2)]
    files = dict(write_block(folder, block.state_dict() | {"turn": batch_id}) for block in blocks)
    config = plan.config.model_dump(mode="json")
    commit(folder, Manifest(batch_id, {0: batch_id, 1: batch_id}, files, None, config, {}))
    return folder


def write_records(run: Path, *steps: int) -> None:
    (run / "metrics").mkdir(parents=True)
    for stage in range(2):
        lines = [json.dumps({"time_s": step / 10, "block": stage, "step": step}) for step in steps]
        (run / "metrics" / f"stage{stage}.jsonl").write_text("\n".join(lines) + '\n{"time_s": 9, "blo')
    lines = [json.dumps({"epoch": epoch, "blocks": [0.5, 0.75], "ensemble": 0.75}) for epoch in (1, 2, 3)]
    (run / "metrics" / "evaluations.jsonl").write_text("\n".join(lines) + "\n")


def steps_of(run: Path, stage: int) -> list[tuple[int, int]]:
    lines = (run / "metrics" / f"stage{stage}.jsonl").read_text().splitlines()
    return [(record["block"], record["step"]) for record in map(json.loads, lines)]


def test_without_resume_a_run_begins_anew_beside_what_is_there(tmp_path: Path) -> None:
    plan = make(tmp_path)
    save(plan, tmp_path / "runs" / "mlp-digits-1", 20)
    assert find_origin(None, plan, None, pytest.fail) == Origin(tmp_path / "runs" / "mlp-digits-2")


def test_auto_goes_on_in_the_newest_folder_at_its_newest_checkpoint(tmp_path: Path) -> None:
    plan, said = make(tmp_path), list[str]()
    save(plan, tmp_path / "runs" / "mlp-digits-9", 60)
    run = tmp_path / "runs" / "mlp-digits-10"
    save(plan, run, 20)
    newest = save(plan, run, 50)
    write_records(run, 10, 50, 70)
    origin = find_origin(AUTOMATIC, plan, None, said.append)
    assert (origin.folder, origin.checkpoint, origin.batch_id) == (run, newest, 50)
    assert said == [f"goes on at batch 50 of {newest}"]
    # 23 batches are an epoch: the third evaluation was of later parameters.
    assert origin.evaluated == (1, 2)
    assert steps_of(run, 0) == [(0, 10), (0, 50)] and steps_of(run, 1) == [(1, 10), (1, 50)]
    told = Origin.read(origin.note())
    assert told == origin


def test_records_follow_their_blocks_to_another_number_of_processes(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mlp-digits-1"
    save(make(tmp_path), run, 50)
    write_records(run, 10)
    find_origin(AUTOMATIC, make(tmp_path, stages=1), None, lambda text: None)
    assert steps_of(run, 0) == [(0, 10), (1, 10)] and not (run / "metrics" / "stage1.jsonl").exists()


def test_a_path_begins_a_new_folder_from_a_run_or_a_checkpoint(tmp_path: Path) -> None:
    plan, run = make(tmp_path), tmp_path / "elsewhere"
    older, newer = save(plan, run, 20), save(plan, run, 50)
    for number, (path, expected) in enumerate(((run, newer), (older, older)), 1):
        origin = find_origin(str(path), plan, None, lambda text: None)
        assert (origin.folder, origin.checkpoint) == (tmp_path / "runs" / f"mlp-digits-{number}", expected)
        assert origin.evaluated == ()


def test_nothing_to_resume_is_said_and_an_attempt_without_a_checkpoint_leaves_no_records(tmp_path: Path) -> None:
    plan, said = make(tmp_path), list[str]()
    first = find_origin(AUTOMATIC, plan, None, said.append)
    write_records(first.folder, 10)
    assert find_origin(None, plan, first.folder, said.append) == first
    assert said == ["nothing to resume: the run begins anew"] * 2
    assert not list((first.folder / "metrics").iterdir())


def test_a_restart_before_the_first_checkpoint_begins_where_the_run_began(tmp_path: Path) -> None:
    plan = make(tmp_path)
    checkpoint = save(plan, tmp_path / "elsewhere", 20)
    first = find_origin(str(checkpoint), plan, None, lambda text: None)
    assert find_origin(str(checkpoint), plan, first.folder, lambda text: None) == first


def test_what_cannot_be_gone_on_from_is_said_in_a_line_each(tmp_path: Path) -> None:
    plan = make(tmp_path)
    checkpoint = save(plan, tmp_path / "elsewhere", 20)
    with pytest.raises(ConfigError) as caught:
        find_origin(str(checkpoint), make(tmp_path, "optimizer.lr=0.7", "data.batch_size=32"), None, pytest.fail)
    assert str(caught.value).splitlines() == [
        "data.batch_size: got 32, the checkpoint has 64: it cannot go on from there",
        "optimizer.lr: got 0.7, the checkpoint has 0.1: it cannot go on from there",
    ]
    (checkpoint / "block1.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"block1\.pt is damaged"):
        find_origin(str(checkpoint), plan, None, pytest.fail)
    with pytest.raises(ConfigError, match="allowed: auto, or the folder"):
        find_origin(str(tmp_path / "nowhere"), plan, None, pytest.fail)
    assert not (tmp_path / "runs").exists()


def test_of_another_variant_the_name_alone_is_reported(tmp_path: Path) -> None:
    checkpoint = save(make(tmp_path), tmp_path / "elsewhere", 20)
    with pytest.raises(ConfigError) as caught:
        find_origin(str(checkpoint), make(tmp_path, "optimizer.name=adam", "optimizer.lr=0.7"), None, pytest.fail)
    assert str(caught.value) == "optimizer.name: got 'adam', the checkpoint has 'sgd': it cannot go on from there"


def test_keys_that_only_one_of_run_and_checkpoint_has_are_not_compared(tmp_path: Path) -> None:
    plan = make(tmp_path)
    config = plan.config.model_dump(mode="json")
    del config["model"]["dropout"]
    config["model"]["width"] = 1.0
    check_compatible(Manifest(20, {}, {}, None, config, {}), plan.config)
    config["model"]["hidden"] = 17
    with pytest.raises(ConfigError, match=r"model\.hidden: got 16, the checkpoint has 17"):
        check_compatible(Manifest(20, {}, {}, None, config, {}), plan.config)


def test_where_blocks_train_one_after_another_cut_and_length_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    in_turn = "training.schedule=one_by_one"
    saved = Manifest(20, {}, {}, None, make(tmp_path, in_turn).config.model_dump(mode="json"), {})
    check_compatible(saved, make(tmp_path, in_turn, "partition.profile_s=1").config)
    with pytest.raises(ConfigError) as caught:
        check_compatible(saved, make(tmp_path, in_turn, "training.epochs=99", "partition.blocks=3").config)
    keys = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert keys == ["training.epochs", "partition.blocks"]


def test_a_run_may_be_longer_and_elsewhere_and_cut_anew(tmp_path: Path) -> None:
    checkpoint = save(make(tmp_path), tmp_path / "elsewhere", 20)
    other = make(tmp_path, "training.epochs=99", "partition.blocks=4", "buffers.policy=replay", stages=1)
    assert find_origin(str(checkpoint), other, None, lambda text: None).batch_id == 20


def test_a_cut_that_is_left_open_is_the_checkpoints(tmp_path: Path) -> None:
    saved = make(tmp_path, "partition.boundaries=[fc2]")
    origin = find_origin(str(save(saved, tmp_path / "elsewhere", 20)), saved, None, lambda text: None)
    open_cut = make(tmp_path, "partition.boundaries=auto")
    assert resumed_plan(open_cut, origin).config.partition.boundaries == ("fc2",)
    more_blocks = make(tmp_path, "partition.boundaries=auto", "partition.blocks=3")
    assert resumed_plan(more_blocks, origin) is more_blocks
    assert resumed_plan(saved, origin) is saved


def damage(checkpoint: Path) -> None:
    (checkpoint / "block1.pt").write_bytes(b"")


def test_damaged_checkpoints_are_set_aside_one_line_each_the_newest_first(tmp_path: Path) -> None:
    plan, said, run = make(tmp_path), list[str](), tmp_path / "runs" / "mlp-digits-1"
    saved = {batch: save(plan, run, batch) for batch in (10, 20, 30, 40)}
    damage(saved[20])
    (saved[30] / "manifest.json").write_bytes((saved[30] / "manifest.json").read_bytes()[:50])
    damage(saved[40])
    assert find_origin(AUTOMATIC, plan, None, said.append).checkpoint == saved[10]
    *damaged, goes_on = said
    for line, batch in zip(damaged, (40, 30, 20), strict=True):
        assert line.startswith(f"greedypipe: {saved[batch]}") and line.endswith(f"set aside as {saved[batch].name}.damaged")
    assert goes_on == f"goes on at batch 10 of {saved[10]}"
    assert sorted(path.name for path in checkpoints_of(run).glob("*.damaged")) == [
        f"{name_of(batch)}.damaged" for batch in (20, 30, 40)
    ]


def test_what_is_damaged_in_another_runs_folder_stays_there(tmp_path: Path) -> None:
    plan, said = make(tmp_path), list[str]()
    older, newer = (save(plan, tmp_path / "elsewhere", batch) for batch in (20, 50))
    damage(newer)
    assert find_origin(str(tmp_path / "elsewhere"), plan, None, said.append).checkpoint == older
    assert said[0].endswith("; passed over") and newer.exists()


def test_where_it_began_is_known_without_being_told_again(tmp_path: Path) -> None:
    plan, said = make(tmp_path), list[str]()
    checkpoint = save(plan, tmp_path / "elsewhere", 20)
    first = find_origin(str(checkpoint), plan, None, lambda text: None)
    assert find_again(plan, first.folder, said.append) == first
    assert said == [f"goes on at batch 20 of {checkpoint}"]
    own = save(plan, first.folder, 22)
    assert find_again(plan, first.folder, said.append).checkpoint == own
    for path in (own, checkpoint):
        damage(path)
    with pytest.raises(ConfigError, match=r"--resume: .*block1\.pt is damaged"):
        find_again(plan, first.folder, said.append)


def test_the_end_of_a_run_that_goes_on_becomes_an_ordinary_checkpoint(tmp_path: Path) -> None:
    plan, run = make(tmp_path, "training.epochs=1"), tmp_path / "runs" / "mlp-digits-1"
    save(plan, run, 23).rename(checkpoints_of(run) / FINAL)
    longer = make(tmp_path, "training.epochs=2")
    origin = find_origin(AUTOMATIC, longer, None, lambda text: None)
    assert origin.checkpoint == checkpoints_of(run) / name_of(23) and origin.checkpoint.exists() and not origin.is_over


def test_a_finished_run_is_over_once_it_has_its_figures(tmp_path: Path) -> None:
    plan, run = make(tmp_path, "training.epochs=1"), tmp_path / "runs" / "mlp-digits-1"
    end = save(plan, run, 23).rename(checkpoints_of(run) / FINAL)
    for summary, is_over in ((None, False), (Failure(RunEnd.FAILED, "no"), False), (make_summary(), True)):
        if summary:
            write_summary(run, summary)
        origin = find_origin(AUTOMATIC, plan, None, lambda text: None)
        assert (origin.checkpoint, origin.is_over) == (end, is_over)
        assert Origin.read(origin.note()) == origin


def test_a_run_that_is_shorter_than_its_checkpoint_is_refused_in_a_line(tmp_path: Path) -> None:
    checkpoint = save(make(tmp_path, "training.epochs=2"), tmp_path / "elsewhere", 24)
    with pytest.raises(ConfigError) as refusal:
        find_origin(str(checkpoint), make(tmp_path, "training.epochs=1"), None, pytest.fail)
    assert str(refusal.value) == "training.epochs: got 1, allowed: 2 or more: the checkpoint is at step 24, 23 are an epoch"


def test_records_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    plan, run = make(tmp_path), tmp_path / "runs" / "mlp-digits-1"
    save(plan, run, 50)
    write_records(run, 10, 50)
    path = run / "metrics" / "stage0.jsonl"
    path.write_bytes(b'\x00\xff\n{"of": 1}\n' + path.read_bytes())
    find_origin(AUTOMATIC, plan, None, lambda text: None)
    assert steps_of(run, 0) == [(0, 10), (0, 50)]


def test_a_disk_that_refuses_to_trim_records_does_not_keep_a_run_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, run = make(tmp_path), tmp_path / "runs" / "mlp-digits-1"
    save(plan, run, 50)
    write_records(run, 10, 50)
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    assert find_origin(AUTOMATIC, plan, None, lambda text: None).evaluated == (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all("keeps records of later steps: No space left on device" in line for line in said)
