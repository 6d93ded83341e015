"""The report's figures say what they are given."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greedypipe.launch.reporting.page.charts import MOST_POINTS, Axis, Series, histogram, line_chart, number, percent, ticks
from greedypipe.launch.reporting.page.figures import SHARES, losses, rates, time_bars
from greedypipe.launch.reporting.page.record import RunRecord, Span
from greedypipe.launch.reporting.page.style import DEPTH, SPAN_COLOURS, SPAN_WORDS, depth_colour
from greedypipe.launch.reporting.page.timeline import choose_window
from greedypipe.launch.reporting.page.words import seconds
from greedypipe.workers.around.recorder import SpanKind
from greedypipe.workers.telemetry.results import StepRecord

X, Y = Axis("step", number), Axis("loss", number)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6), st.integers(3, 12))
def test_ticks_are_few_even_and_inside(low: float, size: float, most: int) -> None:
    values = ticks(low, low + size, most)
    assert len(values) <= most
    assert all(low - 1e-6 * size <= value <= low + size * (1 + 1e-6) for value in values)


@pytest.mark.parametrize(
    ("low", "high", "most", "whole", "expected"),
    [
        (0, 1, 6, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 6, 8, True, [1, 2, 3, 4, 5, 6]),
        (0.5, 1.5, 8, True, [1]),
        (0, 4310, 6, False, [0, 1000, 2000, 3000, 4000]),
    ],
)
def test_ticks_are_round(low: float, high: float, most: int, whole: bool, expected: list[float]) -> None:
    assert ticks(low, high, most, whole) == expected


def test_every_point_of_a_line_tells_its_values() -> None:
    chart = line_chart([Series("block <0>", "#123456", [(1, 0.5), (2, 0.25)])], X, Axis("accuracy", percent))
    assert re.findall(r"<title>(.*?)</title>", chart) == [
        "block &lt;0&gt;: 50% at step 1",
        "block &lt;0&gt;: 25% at step 2",
    ]


def test_a_long_line_is_thinned_to_means() -> None:
    chart = line_chart([Series("a", "#123456", [(step, 2.0 * step) for step in range(1600)])], X, Y)
    titles = re.findall(r"<title>a: (\S+) at step (\S+)</title>", chart)
    assert len(titles) == MOST_POINTS and titles[0] == ("9", "4.5")


@pytest.mark.parametrize("points", [[(1.0, 2.0)], [(0.0, 0.0), (0.0, 0.0)]])
def test_a_line_without_extent_can_be_drawn(points: list[tuple[float, float]]) -> None:
    assert "nan" not in line_chart([Series("a", "#123456", points)], X, Axis("loss", number, starts_at_zero=True))


def test_no_points_are_said_in_words() -> None:
    assert "Nothing was recorded" in line_chart([Series("a", "#123456", [])], X, Y)


def test_a_histogram_shows_shares_and_marks_the_open_end() -> None:
    chart = histogram([1, 0, 3], Axis("staleness", number), "#123456", last_and_more=True)
    assert "staleness 0: 1 reads, 25.0%" in chart and "staleness 2: 3 reads, 75.0%" in chart
    assert ">2+</text>" in chart


def test_colours_go_from_the_first_to_the_last_block() -> None:
    assert [depth_colour(index, 6) for index in range(6)] == list(DEPTH)
    assert depth_colour(0, 1) == DEPTH[0]
    assert len({depth_colour(index, 30) for index in range(30)}) == 30


def test_every_kind_of_span_has_a_colour_and_words() -> None:
    assert set(SPAN_COLOURS) == set(SPAN_WORDS) == {kind.name.lower() for kind in SpanKind}


def test_throughput_goes_on_behind_a_resumption_that_counts_from_0_again() -> None:
    counted = [(1.0, 1.0, 100), (2.0, 2.0, 300), (2.5, 0.4, 200), (4.0, 1.4, 500)]
    records = [StepRecord(block=0, step=0, time_s=time, train_s=train, samples=count) for time, train, count in counted]
    clocks, found = zip(*rates(records), strict=True)
    assert clocks == pytest.approx((2.0, 2.4, 3.5)) and found == pytest.approx((200.0, 500.0, 300.0))


def loss_records(*pairs: tuple[int, float | None]) -> list[StepRecord]:
    return [StepRecord(block=0, step=step, loss=loss) for step, loss in pairs]


def test_a_short_window_counts_by_its_steps() -> None:
    """The record before an evaluation is of one step, and joins the next one."""
    assert losses(loss_records((20, 1.0), (40, 2.0), (41, 9.0), (60, 3.0), (80, 4.0))) == [
        (20.0, 1.0),
        (40.0, 2.0),
        (60.0, (9.0 + 19 * 3.0) / 20),
        (80.0, 4.0),
    ]


def test_a_short_last_window_is_left_out_and_a_missing_loss_passed_over() -> None:
    assert losses(loss_records((20, 1.0), (40, None), (60, 3.0), (61, 9.0))) == [(20.0, 1.0), (60.0, 3.0)]
    assert losses([]) == []


def test_a_loss_curve_is_short_and_goes_on_behind_a_resumption() -> None:
    points = losses(loss_records(*((step, 1.0) for step in range(1, 1601))))
    assert len(points) == MOST_POINTS and {loss for _, loss in points} == {1.0}
    assert losses(loss_records((20, 1.0), (40, 2.0), (30, 3.0), (50, 4.0)))[-1] == (50.0, (3.0 + 20 * 4.0) / 21)


@pytest.mark.parametrize("feedback", [0.0, 0.25])
def test_time_is_told_of_what_some_stage_has_spent_it_on(feedback: float) -> None:
    shares = [{"wait_output_fraction": 0.5, "wait_feedback_fraction": feedback}, {"wait_input_fraction": 0.125}]
    steps = [[StepRecord(block=block, step=1, **share)] for block, share in enumerate(shares)]
    run = RunRecord(Path("run"), {}, None, [], ["0", "1"], steps, {})
    told = {name for name in SHARES if name in time_bars(run)}
    assert told == SHARES.keys() - (set() if feedback else {"wait for feedback"})
    assert "No stage has recorded" in time_bars(replace(run, steps=[[], []]))


def span(stage: int, kind: str, start_s: float, batch_id: int) -> Span:
    return Span(stage, stage, kind, kind, start_s, start_s + 1, batch_id)


def test_the_timeline_shows_where_all_stages_were_recorded_and_nothing_was_evaluated() -> None:
    first = [span(0, "forward" if second < 30 or second > 34 else "evaluate", second, second) for second in range(60)]
    second = [span(1, "forward", second, second) for second in range(25, 80)]
    window = choose_window(sorted(first + second, key=lambda one: one.start_s))
    assert window.start_s >= 35 and window.end_s <= 60


@pytest.mark.parametrize(("value", "text"), [(2.04, "2.0 s"), (300, "5.0 min"), (9000, "2.5 h")])
def test_durations_have_the_unit_that_suits_them(value: float, text: str) -> None:
    assert seconds(value) == text
