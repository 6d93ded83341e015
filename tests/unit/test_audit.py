"""What the audit compares with what, and that back-propagation that saves memory is back-propagation."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from benchmarks.audit import Found, Row, key_of, summarise
from benchmarks.engines import plain
from benchmarks.engines.frugal import Accumulated, Recomputed
from benchmarks.engines.plain import back_propagation, whole_backward
from benchmarks.engines.timing import Case, Seat, Worker
from greedypipe.pipeline.optimizer import build_optimizer

DATA = ("data.name=synthetic", "data.shape=[1,8,8]", "data.classes=4", "data.samples=32", "data.batch_size=8")
CASE = Case(
    (*DATA, "model.name=mlp", "model.hidden=16", "optimizer.lr=0.01"),
    num_stages=1,
    warmup_steps=0,
    steps=2,
)


def _row(name: str, is_local: bool, cores: int = 1) -> Row:
    return Row(name, cores, is_local, lambda: Found(0, []))


def _measured(*figures: tuple[Row, float, Sequence[int]]) -> dict[str, Found]:
    return {key_of(row): Found(rate, sizes) for row, rate, sizes in figures}


def test_local_learning_meets_the_fastest_that_needs_no_more_memory_on_as_many_cores() -> None:
    whole, accumulated, local = _row("whole", False), _row("accumulated", False), _row("local", True)
    elsewhere = _row("whole", False, cores=2)
    repeats = [
        _measured((whole, 100, [90]), (accumulated, speed, [40]), (local, 80, [30, 50]), (elsewhere, 900, [10]))
        for speed in (40, 50, 20)
    ]
    answer = {one["name"]: one for one in summarise([elsewhere, whole, accumulated, local], repeats)}
    assert answer["local"]["rival"] == "accumulated"
    assert answer["local"]["over_rival"] == {"median": 2.0, "min": 1.6, "max": 4.0}
    assert answer["local"]["largest_bytes"] == 50
    assert answer["local"]["all_bytes"] == 80
    assert "rival" not in answer["whole"]


def test_local_learning_that_needs_least_has_no_rival() -> None:
    whole, local = _row("whole", False), _row("local", True)
    (_, own) = summarise([whole, local], [_measured((whole, 100, [90]), (local, 80, [30]))])
    assert "rival" not in own


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(10, 6), torch.arange(10) % 3
    networks = [nn.Linear(6, 3) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    whole_backward(networks[0], images, labels)
    Accumulated(4).backward(networks[1], images, labels)
    for own, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_recomputed_activations_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(worker: Worker) -> list[torch.Tensor]:
        found: list[torch.nn.Parameter] = []
        monkeypatch.setattr(plain, "build_optimizer", lambda config, own: found.extend(own) or build_optimizer(config, own))
        step = worker(CASE, Seat(0, 1, torch.distributed.HashStore()))
        step()
        step()
        return [parameter.detach() for parameter in found]

    before = trained(back_propagation)
    assert all(torch.equal(own, other) for own, other in zip(trained(Recomputed(2)), before, strict=True))
