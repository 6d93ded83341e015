"""Several processes share the batches of a stage: nothing is lost, repeated or out of order, and the result is the same."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from greedypipe.launch.checkpoints.manifest import complete_folders
from greedypipe.launch.on_host import local_run
from greedypipe.launch.on_host.outcome import Outcome
from tests.multiprocess.harness import TINY, assert_equal_states, exported, run_pipeline
from tests.multiprocess.plain_ddp import train_with_ddp
from tests.multiprocess.test_equivalence import reference
from tests.multiprocess.test_failures import causes

BARE = [
    "data.name=digits",
    "data.batch_size=120",
    "model.name=tests.multiprocess.bare_network:build",
    "head.name=linear",
    "partition.blocks=3",
    "training.epochs=1",
    "optimizer.lr=0.05",
    "faults.timeout_s=30",
]
"""12 steps, the last of 118 samples; without batch normalisation, so that replicas differ by rounding alone."""
ROUNDING = {"rtol": 1e-3, "atol": 1e-5}


def assert_close_states(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert list(left) == list(right)
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], **ROUNDING, msg=lambda text, name=name: f"{name}: {text}")


def samples(outcome: Outcome, stage: int) -> int:
    return sum(report["samples"] for report in outcome.summary["stages"] if report["stage"] == stage)


@pytest.mark.parametrize("replicas", [(1, 2, 1), (2, 1, 1), (1, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize("transport", ["shm", "gloo"])
def test_replicas_give_what_one_process_gives_within_rounding(
    replicas: tuple[int, ...], transport: str, tmp_path: Path
) -> None:
    overrides = [*BARE, f"link.transport={transport}"]
    shared = run_pipeline([*overrides, f"placement.replicas={list(replicas)}"], sum(replicas), tmp_path)
    assert set(shared.exit_codes) == {0}, shared.printed
    state, accuracies, together = reference(overrides)
    assert_close_states(exported(shared), state)
    assert shared.summary["accuracy"]["blocks"] == pytest.approx(accuracies, abs=0.01)
    assert shared.summary["accuracy"]["ensemble"] == pytest.approx(together, abs=0.01)
    assert [samples(shared, stage) for stage in range(3)] == [1438, 1438, 1438], "every sample once in every stage"
    assert [report["label"].count(".") for report in shared.summary["stages"]] == [
        int(count > 1) for count in replicas for _ in range(count)
    ]


def test_a_run_with_replicas_gives_the_same_bits_every_time(tmp_path: Path) -> None:
    overrides = [*TINY, "partition.blocks=3", "placement.replicas=[1,2,1]", "method.name=reconstruction"]
    once, again = (run_pipeline(overrides, 4, tmp_path) for _ in range(2))
    assert once.exit_codes == again.exit_codes == [0, 0, 0, 0], once.printed
    assert_equal_states(exported(once), exported(again))
    alone = run_pipeline([*overrides, "placement.replicas=1"], 3, tmp_path)
    assert any(not torch.equal(value, exported(alone)[name]) for name, value in exported(once).items()), "not shared"


@pytest.mark.parametrize("loss", ["reconstruction", "reconstruction_only", "none"])
def test_every_kind_of_loss_can_be_shared(loss: str, tmp_path: Path) -> None:
    outcome = run_pipeline([*TINY, "partition.blocks=2", "placement.replicas=2", f"method.name={loss}"], 4, tmp_path)
    assert outcome.exit_codes == [0] * 4, outcome.printed


def test_one_block_with_replicas_is_distributed_data_parallel(tmp_path: Path) -> None:
    overrides = [*TINY, "partition.blocks=1", "placement.replicas=2", "data.drop_last=true"]
    outcome = run_pipeline(overrides, 2, tmp_path)
    assert outcome.exit_codes == [0, 0], outcome.printed
    assert_equal_states(exported(outcome), train_with_ddp(overrides, 2, tmp_path))


def test_a_run_goes_on_with_another_number_of_replicas(tmp_path: Path) -> None:
    overrides = [*BARE, "checkpoint.interval_steps=5", "training.epochs=2"]
    fault = ["debug.fault=exit", "debug.fault_stage=0", "debug.fault_step=18", "debug.slow_stage=0", "debug.slow_factor=4"]
    broken = run_pipeline([*overrides, *fault, "placement.replicas=[1,2,1]"], 4, tmp_path)
    assert all(broken.exit_codes) and complete_folders(broken.folder), broken.printed
    resumed = local_run.run_pipeline([*overrides, "placement.replicas=[2,1,1]"], 4, broken.folder, goes_on=True)
    assert resumed.exit_codes == [0] * 4, resumed.printed
    assert resumed.summary["began_at_batch_id"] > 0
    assert_close_states(exported(resumed), reference(overrides)[0])
    for stage in range(3):
        steps = [record.step for record in resumed.records(stage)]
        assert steps == sorted(set(steps)) and steps[-1] == 24


def test_a_replica_that_dies_is_named(tmp_path: Path) -> None:
    fault = ["debug.fault=exit", "debug.fault_stage=1", "debug.fault_step=3"]
    outcome = run_pipeline([*BARE, *fault, "placement.replicas=[1,2,1]", "training.epochs=100"], 4, tmp_path)
    (cause,) = causes(outcome)
    assert cause.startswith("stage 1.") and "died without a word" in cause
    assert [outcome.exit_codes[rank] for rank in (0, 3)] == [1, 1]
