"""The comparison of engines at its smallest size, and that they train the same network."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from benchmarks.engines.plain import back_propagation
from benchmarks.engines.timing import Case, EngineError, Seat, Step, step_times
from benchmarks.engines.torch_pipelining import ChunkModule, Pipelining

SMALL = Case(
    (
        "data.name=synthetic",
        "data.shape=[3,8,8]",
        "data.batch_size=16",
        "data.samples=160",
        "model.name=vgg8b",
        "model.width=0.05",
        "partition.blocks=2",
    ),
    2,
    0,
    2,
)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_every_row_has_a_rate_or_says_why_not(tmp_path: Path, run_benchmark: Callable[..., None]) -> None:
    run_benchmark("throughput", "--out", str(tmp_path / "throughput"))
    sections = json.loads((tmp_path / "throughput.json").read_text())["sections"]
    assert len(sections) == 3
    for found in sections.values():
        for row in found["rows"]:
            assert row.get("error") or row["samples_per_s"]["median"] > 0
        assert all(figure["ratio"]["median"] > 0 for figure in found["figures"])
    rows = {row["name"]: row for row in sections["headline"]["rows"]}
    assert {"GPipe, m=2", "1F1B, m=2", "interleaved, m=2", "zero-bubble, m=2"} <= set(rows)
    assert all("error" not in row for name, row in rows.items() if name != "zero-bubble, m=2"), rows
    assert (tmp_path / "throughput.png").stat().st_size > 10_000


def test_an_engine_that_cannot_run_a_case_says_why() -> None:
    with pytest.raises(EngineError, match="micro"):
        step_times(Pipelining("1F1B", 1), SMALL, 2, 1)


def fails_after_two_batches(case: Case, seat: Seat) -> Step:
    """Builds and trains, so that it fails in the middle of its work."""
    step = back_propagation(case, seat)
    for _ in range(2):
        step()
    raise RuntimeError("finished")


def test_a_failing_process_is_reported_with_its_first_line() -> None:
    with pytest.raises(EngineError, match="RuntimeError: finished"):
        step_times(fails_after_two_batches, SMALL, 1, 1)


def test_the_chunks_together_are_the_network() -> None:
    plan = SMALL.plan(2)
    chunks = [ChunkModule(plan, block) for block in range(2)]
    parameters = {id(parameter) for chunk in chunks for parameter in chunk.parameters()}
    network = plan.blueprint.network
    wanted = {id(one) for layer in (*network.layers, network.classifier) for one in layer.module.parameters()}
    assert parameters == wanted
    x, labels = torch.randn(4, 3, 8, 8, requires_grad=True), torch.tensor([0, 1, 2, 3])
    functional.cross_entropy(chunks[1](chunks[0](x)), labels).backward()
    assert x.grad is not None and x.grad.is_contiguous() and x.grad.abs().sum() > 0
