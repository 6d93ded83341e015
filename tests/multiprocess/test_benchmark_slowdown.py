"""DGL's slow-down experiment at its smallest size."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_slowdown_compares_policies_with_each_stage_slowed(
    tmp_path: Path, run_benchmark: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run_benchmark("slowdown", "--out", str(tmp_path / "slowdown"))
    rows = json.loads((tmp_path / "slowdown.json").read_text())["rows"]
    wanted = [(policy, stage) for policy in ("1F1B", "replay M=5") for stage in (-1, 0, 1)]
    assert [(row["policy"], row["slow_stage"]) for row in rows] == wanted
    for row in rows:
        assert row["others_over_unslowed"]["median"] > 0 and 0 < row["accuracy"]["median"] <= 1
    # Whoever waits for everybody learns the same, however slow one of them is.
    assert len({row["accuracy"]["median"] for row in rows if row["policy"] == "1F1B"}) == 1
    assert "replay M=5" in capsys.readouterr().out
    assert (tmp_path / "slowdown.png").stat().st_size > 10_000
