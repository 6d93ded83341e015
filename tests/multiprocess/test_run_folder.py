"""What a run leaves in its folder."""

import json
from pathlib import Path

import pytest
import yaml

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from tests.multiprocess.harness import TINY, Outcome, assert_equal_states, exported, run_pipeline

OVERRIDES = [*TINY, "partition.blocks=3", "logging.interval_steps=4", "placement.threads=2", "logging.tensorboard=true"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_pipeline(OVERRIDES, 2, tmp_path_factory.mktemp("run"))


def test_the_run_succeeds(outcome: Outcome) -> None:
    assert outcome.exit_codes == [0, 0], outcome.printed


def test_its_configuration_reproduces_it(outcome: Outcome, tmp_path: Path) -> None:
    assert load_config(str(outcome.folder / "config.yaml"), []) == load_config(None, OVERRIDES)
    tree = yaml.safe_load((outcome.folder / "config.yaml").read_text())
    settings = [f"{section}.{key}={json.dumps(value)}" for section, keys in tree.items() for key, value in keys.items()]
    again = run_pipeline(settings, 1, tmp_path)
    assert_equal_states(exported(again), exported(outcome))


def test_the_summary_has_every_figure_of_every_stage(outcome: Outcome) -> None:
    summary = json.loads((outcome.folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert [stage["blocks"] for stage in summary["stages"]] == [[0], [1, 2]]
    for stage in summary["stages"]:
        assert stage["batches"] == 12 and stage["samples"] == 1438
        assert stage["threads"] == 2
        assert stage["step_time_s"] > 0 and stage["peak_memory_bytes"] > 1e6
        assert stage["busy_fraction"] + stage["wait_input_fraction"] + stage["wait_output_fraction"] == pytest.approx(1)
    assert summary["stages"][1]["reuse_mean"] == 1.0 and summary["stages"][1]["dropped"] == 0
    first, last = summary["stages"]
    # 12 training batches, 3 of evaluation, the mark after them and the end.
    assert (first["link"]["transport"], first["link"]["messages"]) == ("shm", 17)
    full = make_plan(load_config(None, OVERRIDES), 2).layout_after(0).slot_bytes
    assert 0.8 * full * 14 < first["link"]["sent_bytes"] < full * 15 and first["slot_bytes"] == 0
    assert last["link"]["transport"] == "none" and last["slot_bytes"] >= full * (4 + 2)
    assert 0 < summary["efficiency"] <= 1.001
    assert summary["bound_samples_per_s"] >= summary["samples_per_s"] * 0.999


def test_every_stage_writes_its_metrics(outcome: Outcome) -> None:
    for stage, blocks in enumerate([[0], [1, 2]]):
        lines = [json.loads(line) for line in (outcome.folder / "metrics" / f"stage{stage}.jsonl").read_text().splitlines()]
        steps = [(line["block"], line["step"]) for line in lines if "loss" in line]
        assert steps == [(block, step) for step in (4, 8, 12) for block in blocks]
        assert (steps[-1][1], lines[-2]["sent_bytes"] > 0) == (12, stage == 0)
        assert all(line["loss"] > 0 for line in lines if "loss" in line)
        (evaluation,) = [line for line in lines if "evaluation" in line]
        assert list(evaluation["accuracy"]) == [str(block) for block in blocks]


def test_tensorboard_gets_every_evaluation(outcome: Outcome) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(outcome.folder / "tensorboard"))
    events.Reload()
    summary = json.loads((outcome.folder / "summary.json").read_text())
    (final,) = events.Scalars("accuracy/final")
    assert (final.step, final.value) == (1, pytest.approx(summary["accuracy"]["final"]))


def test_it_prints_the_stages_the_evaluation_and_the_result(outcome: Outcome) -> None:
    text = outcome.printed[0]
    assert "DGL, fifo links, 3 blocks in 2 processes" in text
    assert "epoch   1/1   accuracy 0." in text
    assert "where the training time went" in text
    assert str(outcome.folder) in text
    assert outcome.printed[1] == "", "only one process talks"
