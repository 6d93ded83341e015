"""The delay that a cut needs for full speed, against the formula of equal stages and by hand."""

from dataclasses import replace

import pytest

from benchmarks.feedback_speed.latency import Setting
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.feedback_delay import FeedbackPace, feedback_pace
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.workers.telemetry.results import LinkReport
from tests.records import make_report


@pytest.mark.parametrize("delay", [0, 1, 2, 3])
@pytest.mark.parametrize("latency_s", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("stages", [2, 3, 5])
def test_equal_stages_keep_the_formula(stages: int, latency_s: float, delay: int) -> None:
    pace = FeedbackPace((1.0,) * stages, (2 * latency_s,) * (stages - 1), (delay,) * (stages - 1))
    assert pace.period_s == pytest.approx(Setting(stages, delay, latency_s, 1.0).formula_s)
    assert pace.needed_delays == pytest.approx([1 + 2 * latency_s] * (stages - 1))
    assert (pace.share_of_bound == pytest.approx(1.0)) == (delay >= pace.needed_delays[0])


def test_a_slow_stage_leaves_its_neighbours_time_for_late_answers() -> None:
    pace = FeedbackPace((1.0, 4.0, 1.0), (2.0, 2.0), (1, 1))
    assert pace.needed_delays == (1.5, 1.5)
    assert pace.period_s == 4.0 and pace.share_of_bound == 1.0


def plan_of(*overrides: str, stages: int = 2) -> Plan:
    return make_plan(load_config(None, ["partition.blocks=4", *overrides]), stages)


def test_it_is_taken_from_what_the_processes_have_reported() -> None:
    first = replace(make_report(0), step_time_s=0.4, link=LinkReport("shm", 10, 1000, 1.0, 5.0, 0))
    second = replace(make_report(1), step_time_s=0.5, back=LinkReport("shm", 20, 1000, 3.0, 5.0, 0))
    pace = feedback_pace(plan_of("method.name=overlap", "feedback.delay=[7,2,9]"), [first, second])
    assert pace == FeedbackPace((0.4, 0.5), (pytest.approx(0.25),), (2,))
    assert pace.needed_delays == (pytest.approx(1.5),)


def test_without_feedback_between_stages_there_is_none() -> None:
    assert feedback_pace(plan_of(), [make_report(0), make_report(1)]) is None
    assert feedback_pace(plan_of("method.name=overlap", stages=1), [make_report(0)]) is None
