"""Feedback where several processes share a stage: what one process would give, whatever interrupts the run."""

from pathlib import Path

import pytest

from greedypipe.launch.checkpoints.manifest import complete_folders
from greedypipe.launch.on_host import local_run
from tests.multiprocess.harness import TINY, assert_equal_states, exported, run_pipeline
from tests.multiprocess.test_equivalence import reference
from tests.multiprocess.test_failures import causes
from tests.multiprocess.test_replicas import BARE, assert_close_states

INTERRUPTED = [*BARE, "training.epochs=2", "checkpoint.interval_steps=5", "feedback.delay=2"]
FAULT = ["debug.fault=exit", "debug.fault_stage=0", "debug.fault_step=18", "debug.slow_stage=0", "debug.slow_factor=4"]


@pytest.mark.parametrize(
    ("settings", "replicas"),
    [
        (["method.name=late_chain"], (1, 2, 1)),
        pytest.param(["method.name=features_replay", "link.transport=gloo"], (2, 3, 1), marks=pytest.mark.slow),
        pytest.param(["method.name=ddg", "feedback.delay=[0,1]"], (2, 1, 2), marks=pytest.mark.slow),
        pytest.param(["method.name=last_gradient"], (1, 1, 2), marks=pytest.mark.slow),
        pytest.param(["method.name=overlap", "feedback.delay=2"], (3, 2, 1), marks=pytest.mark.slow),
        pytest.param(
            ["method.name=local_critic", "auxiliary.name=sgd", "auxiliary.lr=1e-3"], (1, 2, 1), marks=pytest.mark.slow
        ),
        pytest.param(["method.name=man", "link.transport=gloo"], (2, 3, 2), marks=pytest.mark.slow),
    ],
    ids=lambda value: value[0].removeprefix("method.name=") if isinstance(value, list) else str(value),
)
def test_replicas_give_what_one_process_gives_within_rounding(
    settings: list[str], replicas: tuple[int, ...], tmp_path: Path
) -> None:
    overrides = [*BARE, *settings]
    shared = run_pipeline([*overrides, f"placement.replicas={list(replicas)}"], sum(replicas), tmp_path)
    assert set(shared.exit_codes) == {0}, shared.printed
    state, accuracies, _ = reference(overrides)
    assert_close_states(exported(shared), state)
    assert shared.summary["accuracy"]["blocks"] == pytest.approx(accuracies, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["late_chain", "ddg", "man"])
@pytest.mark.parametrize("replicas", [(1, 2, 1), (2, 1, 3)])
def test_a_run_goes_on_with_what_was_on_its_way(name: str, replicas: tuple[int, ...], tmp_path: Path) -> None:
    """With the same replicas bit for bit, with others within rounding."""
    overrides = [*INTERRUPTED, f"method.name={name}"]
    begun, rest = [*overrides, "placement.replicas=[1,2,1]"], [*overrides, f"placement.replicas={list(replicas)}"]
    broken = run_pipeline([*begun, *FAULT], 4, tmp_path)
    assert all(broken.exit_codes) and complete_folders(broken.folder), broken.printed
    resumed = local_run.run_pipeline(rest, sum(replicas), broken.folder, goes_on=True)
    assert set(resumed.exit_codes) == {0}, resumed.printed
    assert resumed.summary["began_at_batch_id"] > 0
    assert_close_states(exported(resumed), reference(overrides)[0])
    if replicas == (1, 2, 1):
        assert_equal_states(exported(resumed), exported(run_pipeline(begun, 4, tmp_path)))


@pytest.mark.slow
def test_replicas_that_are_started_again_take_up_their_rows(tmp_path: Path) -> None:
    settings = [*INTERRUPTED, "method.name=features_replay", "placement.replicas=[1,2,1]"]
    fault = ["debug.fault=exit", "debug.fault_stage=2", "debug.fault_step=17", "faults.heartbeat_timeout_s=2"]
    struck = run_pipeline([*settings, "faults.policy=isolate", *fault], 4, tmp_path)
    assert struck.exit_codes == [0] * 4, struck.printed
    assert_equal_states(exported(struck), exported(run_pipeline(settings, 4, tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cdni", "dtp", "dfa", "fdg", "overlap_weights", "man_pp"])
def test_every_other_method_gives_the_same_bits_every_time(name: str, tmp_path: Path) -> None:
    """With dropout and batch normalisation, over rows that replicas do not share equally."""
    overrides = [*TINY, "data.batch_size=126", "partition.blocks=3", "model.dropout=0.2", "placement.replicas=[1,3,2]"]
    settings = [*overrides, f"method.name={name}", "auxiliary.name=adam", "auxiliary.lr=1e-3"]
    once, again = (run_pipeline(settings, 6, tmp_path) for _ in range(2))
    assert once.exit_codes == again.exit_codes == [0] * 6, once.printed
    assert_equal_states(exported(once), exported(again))


@pytest.mark.slow
def test_a_replica_that_dies_is_named_where_feedback_is_awaited(tmp_path: Path) -> None:
    fault = ["debug.fault=exit", "debug.fault_stage=1", "debug.fault_step=3"]
    settings = [*BARE, "method.name=late_chain", "placement.replicas=[1,2,1]", "training.epochs=100"]
    outcome = run_pipeline([*settings, *fault], 4, tmp_path)
    (cause,) = causes(outcome)
    assert cause.startswith("stage 1.") and "died without a word" in cause
