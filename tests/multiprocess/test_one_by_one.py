"""Blocks that train one after another, as processes: the bits of the sequential reference, through a resume too."""

from pathlib import Path

import pytest

from greedypipe.launch.on_host import local_run
from tests.multiprocess.harness import TINY, run_pipeline
from tests.multiprocess.test_equivalence import assert_equals_reference

RUN = [*TINY, "partition.blocks=3", "training.schedule=one_by_one", "model.dropout=0.2", "checkpoint.interval_steps=5"]
FAULT = ["debug.fault=exit", "debug.fault_stage=1", "debug.fault_step=20", "debug.slow_stage=0", "debug.slow_factor=4"]


def test_processes_give_the_bits_of_the_reference(tmp_path: Path) -> None:
    assert_equals_reference(run_pipeline(RUN, 3, tmp_path), RUN)


@pytest.mark.slow
def test_replicas_take_the_same_part(tmp_path: Path) -> None:
    overrides = [*RUN, "data.batch_size=64", "data.drop_last=true", "placement.replicas=[1,2,1]"]
    outcome = run_pipeline(overrides, 4, tmp_path)
    assert set(outcome.exit_codes) == {0}, outcome.printed
    assert [report.batches for report in outcome.reports] == [66] * 4


@pytest.mark.slow
def test_a_resumed_run_on_other_processes_equals_the_reference(tmp_path: Path) -> None:
    interrupted = run_pipeline([*RUN, *FAULT], 3, tmp_path)
    assert all(interrupted.exit_codes), interrupted.printed
    resumed = local_run.run_pipeline(RUN, 2, interrupted.folder, goes_on=True)
    assert 5 <= resumed.summary["began_at_batch_id"] <= 20
    assert_equals_reference(resumed, RUN)
    assert [one["epoch"] for one in resumed.summary["evaluations"]] == [1, 2, 3]
