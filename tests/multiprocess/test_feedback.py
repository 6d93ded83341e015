"""Feedback between processes: the bits of the sequential reference, whatever interrupts the run."""

from pathlib import Path

import pytest

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host import local_run
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.methods import METHODS
from tests.multiprocess.harness import TINY, assert_equal_states, exported, run_pipeline
from tests.multiprocess.test_equivalence import assert_equals_reference

FOUR = [*TINY, "partition.blocks=4", "model.dropout=0.2"]
METHOD_NAMES = [name for name, one in METHODS.items() if one.reach is not Reach.NONE]
ADAM = ["auxiliary.name=adam", "auxiliary.lr=1e-3"]
INTERRUPTED = [*FOUR, "training.epochs=2", "checkpoint.interval_steps=3"]


@pytest.mark.parametrize(
    "settings",
    [
        ["method.name=late_chain", "method.rows=0.5", "method.lost=0.5", "feedback.delay=[2,1,0]"],
        ["method.name=ddg", "link.transport=gloo"],
        ["method.name=man", "method.every=2", "training.precision=bf16"],
    ],
    ids=["late_chain", "ddg over gloo", "man in bf16"],
)
def test_feedback_gives_the_bits_of_the_sequential_reference(settings: list[str], tmp_path: Path) -> None:
    overrides = [*FOUR, *settings]
    assert_equals_reference(run_pipeline(overrides, 2, tmp_path), overrides)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_method_gives_them_on_any_number_of_processes(name: str, tmp_path: Path) -> None:
    for processes, delay in ((2, "0"), (2, "[1,0,2]"), (4, "1"), (4, "2")):
        overrides = [*FOUR, *ADAM, f"method.name={name}", f"feedback.delay={delay}"]
        assert_equals_reference(run_pipeline(overrides, processes, tmp_path), overrides)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["link.transport=gloo"], ["training.precision=bf16"]], ids=["gloo", "bf16"])
@pytest.mark.parametrize("name", ["features_replay", "local_critic", "late_chain"])
def test_over_gloo_and_in_bf16_too(name: str, settings: list[str], tmp_path: Path) -> None:
    overrides = [*FOUR, *ADAM, f"method.name={name}", *settings]
    assert_equals_reference(run_pipeline(overrides, 4, tmp_path), overrides)


def test_a_resumed_run_takes_up_what_was_on_its_way(tmp_path: Path) -> None:
    """What a block had sent, and the batches that it kept, are in its file: other processes go on with them."""
    settings = [*INTERRUPTED, "method.name=features_replay", "feedback.delay=2"]
    fault = ["debug.fault=exit", "debug.fault_stage=1", "debug.fault_step=17", "debug.slow_stage=0", "debug.slow_factor=3"]
    interrupted = run_pipeline([*settings, *fault], 4, tmp_path)
    assert all(interrupted.exit_codes), interrupted.printed
    resumed = local_run.run_pipeline(settings, 2, interrupted.folder, goes_on=True)
    assert resumed.exit_codes == [0, 0], resumed.printed
    assert resumed.summary["began_at_batch_id"] >= 3
    assert_equals_reference(resumed, settings)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_a_stage_that_is_started_again_alone_changes_no_bit(name: str, tmp_path: Path) -> None:
    settings = [*INTERRUPTED, *ADAM, f"method.name={name}", "faults.heartbeat_timeout_s=2"]
    fault = ["faults.policy=isolate", "debug.fault=exit", "debug.fault_stage=1", "debug.fault_step=20"]
    struck = run_pipeline([*settings, *fault], 2, tmp_path)
    assert struck.exit_codes == [0, 0], struck.printed
    assert [report["restarts"] for report in struck.summary["stages"]] == [0, 1]
    assert_equals_reference(struck, settings)


def test_a_wait_for_feedback_is_named(tmp_path: Path) -> None:
    """The next stage computes for longer than anybody waits: the stage before has passed its batch on already."""
    slow = ["debug.fault=hang", "debug.fault_stage=1", "debug.fault_step=3", "faults.timeout_s=2"]
    outcome = run_pipeline([*TINY, "partition.blocks=2", "method.name=overlap", "feedback.delay=0", *slow], 2, tmp_path)
    assert all(outcome.exit_codes)
    said = "".join(outcome.printed).replace("\n", " ")
    assert "stage 0 waited 2 s for feedback of stage 1, last batch_id 3" in said, said


def test_with_replay_parameters_come_back_whenever_they_come(tmp_path: Path) -> None:
    """A slower next stage is behind, and nobody waits for it; each process sends what two blocks exchange within it."""
    slow = ["debug.slow_stage=1", "debug.slow_factor=3", "buffers.policy=replay", "training.epochs=2"]
    outcome = run_pipeline([*FOUR, *slow, "method.name=man", "feedback.delay=2"], 2, tmp_path)
    assert outcome.exit_codes == [0, 0], outcome.printed
    before, behind = outcome.reports
    assert before.wait_feedback_fraction == 0 and before.batches == behind.batches == 24
    assert before.feedback_age_mean is not None and before.feedback_age_mean > 0
    assert behind.feedback_age_mean is None and behind.back is not None and 0 < behind.back.messages <= 25


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["feedback.delay=2"], "feedback.delay: got [2], which has no effect with method.name=cross_entropy"),
        (["method.name=ddg", "feedback.delay=[1,1]"], "feedback.delay: got 2 numbers, allowed: one number, or one for each"),
        (["method.name=ddg", "buffers.policy=replay"], "method.name: got ddg with buffers.policy=replay, allowed: fifo"),
        (
            ["method.name=late_chain", "method.rows=0.5", "placement.replicas=2"],
            "placement.replicas: got 2 with method.name=late_chain, allowed: 1: with method.rows below 1",
        ),
        (
            ["method.name=man", "buffers.policy=replay", "faults.policy=isolate"],
            "faults.policy: got isolate with method.name=man and buffers.policy=replay, allowed: restart",
        ),
        (["method.name=ddg", "training.compile=inductor"], "training.compile: got inductor with method.name=ddg"),
        (["method.name=late_chain", "method.rows=0.5", "method.weights=stashed"], "method.rows: got 0.5 with"),
    ],
)
def test_what_feedback_cannot_be_combined_with_is_refused(settings: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_plan(load_config(None, [*FOUR, *settings]), 2)
    assert complaint in str(error.value)


def test_the_exported_network_is_that_of_the_last_evaluation(tmp_path: Path) -> None:
    """Layers that live on feedback have made all of their steps before they are judged."""
    overrides = [*FOUR, "method.name=features_replay", "feedback.delay=3"]
    outcome = run_pipeline(overrides, 2, tmp_path)
    assert_equals_reference(outcome, overrides)
    assert_equal_states(exported(outcome), exported(run_pipeline(overrides, 1, tmp_path)))
