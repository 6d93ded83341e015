"""Peak memory at its smallest size."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.timeout(200)
def test_memory_tells_processes_and_slots_apart(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("memory", "--out", str(tmp_path / "memory"))
    results = json.loads((tmp_path / "memory.json").read_text())
    assert {row["engine"]: len(row["process_bytes"]) for row in results["rows"]} == {"BP": 1, "1F1B": 4, "FIFO": 4}
    for row in results["rows"]:
        assert all(size > 0 for size in row["process_bytes"])
        # The first stage receives nothing; every other one has slots.
        assert [size > 0 for size in row["slot_bytes"]] == [
            row["engine"] == "FIFO" and stage > 0 for stage in range(len(row["slot_bytes"]))
        ]
        assert all(slots < size for slots, size in zip(row["slot_bytes"], row["process_bytes"], strict=True))
    assert results["baseline_bytes"] > 1e8
    assert (tmp_path / "memory.png").stat().st_size > 10_000
