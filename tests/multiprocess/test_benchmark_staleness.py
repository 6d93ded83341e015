"""DGL's buffer experiments at their smallest size."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import staleness


@pytest.mark.timeout(200)
def test_both_sweeps_have_a_row_per_value_and_nothing_is_run_twice(
    tmp_path: Path, run_benchmark: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ("--out", str(tmp_path / "staleness"))
    run_benchmark("staleness", *out)
    rows = json.loads((tmp_path / "staleness.json").read_text())["rows"]
    assert [(row["order"], row["factor"], row["capacity"], row["runs"]) for row in rows] == [
        ("back-propagation", 1.0, 1, 1),
        ("synchronous", 1.0, 1, 1),
        ("random", 1.0, 50, 1),
        ("random", 2.0, 50, 2),
        ("random", 1.2, 1, 2),
        ("random", 1.2, 5, 2),
    ]
    assert all(0 < row["accuracy"]["min"] <= row["accuracy"]["max"] <= 1 for row in rows)
    stale = {(row["order"], row["capacity"]): row["staleness_mean"]["max"] for row in rows}
    # A buffer of one place holds nothing old; in lockstep every batch is read once, at once.
    assert stale["random", 1] == stale["synchronous", 1] == 0 < stale["random", 5]
    assert rows[1]["reuse_mean"]["max"] == 1 and rows[1]["unread"]["max"] == 0
    assert (tmp_path / "staleness.png").stat().st_size > 10_000
    monkeypatch.setattr(staleness, "run_case", lambda *arguments: pytest.fail("run again"))
    run_benchmark("staleness", *out)
