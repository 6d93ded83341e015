"""How the throughput of a run is read from its records."""

import json
from pathlib import Path

import pytest

from greedypipe.launch.on_host.outcome import Outcome
from greedypipe.workers.telemetry.summary_file import write_summary
from tests.records import make_summary


def outcome(folder: Path, *stages: list[tuple[float, int]]) -> Outcome:
    """A run of which every stage has left (Unix seconds, step) records."""
    (folder / "metrics").mkdir()
    write_summary(folder, make_summary(len(stages)))
    for stage, points in enumerate(stages):
        lines = [json.dumps({"block": stage, "unix_s": clock, "step": step}) for clock, step in points]
        (folder / "metrics" / f"stage{stage}.jsonl").write_text("\n".join(lines) + "\n")
    return Outcome([0] * len(stages), [], folder)


def test_rates_count_while_all_stages_train(tmp_path: Path) -> None:
    # The first stage is ahead and ends at 20 s; the second has two warm-up steps behind it at 10 s, and works off what
    # is left twice as fast from 20 s on.
    ahead = [(2.0, 2), (20.0, 20)]
    behind = [(10.0, 2), (20.0, 6), (25.0, 20)]
    assert outcome(tmp_path, ahead, behind).steady_samples_per_s(8, 2) == pytest.approx([8.0, 3.2])


def test_the_clock_may_begin_and_end_between_two_records(tmp_path: Path) -> None:
    first = [(0.0, 4), (8.0, 12), (12.0, 16)]
    last = [(1.0, 4), (9.0, 8), (14.0, 16)]
    rates = outcome(tmp_path, first, last).steady_samples_per_s(1, 6)
    # From 5 s, when the last stage has 6 steps, to 12 s, when the first stage ends.
    assert rates == pytest.approx([1.0, (8 + 3 / 5 * 8 - 6) / 7])


def test_a_record_that_waited_for_an_evaluation_does_not_count(tmp_path: Path) -> None:
    steady = [(4.0, 4), (8.0, 8), (12.0, 12), (30.0, 14)]
    assert outcome(tmp_path, steady, steady).steady_samples_per_s(1, 4) == pytest.approx([1.0, 1.0])


def test_stages_that_never_train_together_have_no_rate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no time in which all stages train"):
        outcome(tmp_path, [(0.0, 4), (8.0, 12)], [(9.0, 4), (12.0, 12)]).steady_samples_per_s(1, 4)
