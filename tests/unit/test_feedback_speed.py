"""The formulas that the benchmark of feedback compares with."""

import pytest
import torch

from benchmarks.feedback_speed.costs import SETTINGS, SMALL, STAGES, case_of
from benchmarks.feedback_speed.formulas import FORMULAS, cost_of, operations
from benchmarks.feedback_speed.latency import Setting
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.methods import METHODS


@pytest.mark.parametrize(
    ("delay", "latency_s", "seconds", "turns"),
    [(0, 0.0, 12.0, 1), (1, 0.0, 3.0, 4), (0, 0.3, 13.8, 1), (1, 0.3, 3.45, 4), (2, 0.3, 3.0, 1), (2, 6.0, 48 / 7, 7)],
)
def test_the_slowest_circuit_sets_the_pace(delay: int, latency_s: float, seconds: float, turns: int) -> None:
    setting = Setting(4, delay, latency_s, 3.0)
    assert setting.formula_s == pytest.approx(seconds) and setting.circuit_turns == turns


def test_every_method_with_feedback_has_a_formula() -> None:
    assert set(FORMULAS) == {"cross_entropy"} | {name for name, one in METHODS.items() if one.reach is not Reach.NONE}


def test_operations_of_a_product_are_counted_in_both_directions() -> None:
    x, weight = torch.ones(2, 3), torch.ones(3, 5, requires_grad=True)
    forward = 2 * 2 * 3 * 5
    assert operations(lambda: x @ weight) == forward
    # Nobody wants the gradient of x.
    assert operations(lambda: (x @ weight).sum().backward()) == 2 * forward
    assert operations(lambda: torch.autograd.grad((x @ weight).sum(), weight)) == 2 * forward


@pytest.mark.parametrize("method", ["cross_entropy", "late_chain", "cdni", "dtp", "man", "overlap_weights"])
def test_formula_and_count_agree_up_to_the_input_gradient(method: str) -> None:
    """What nobody wants is not computed, which the formulas do not know: at most a third of a turn."""
    cost = cost_of(case_of(method, [*SETTINGS, *SMALL, "data.samples=64"], 1).plan(STAGES))
    assert all(2 / 3 < counted / formula <= 1.001 for counted, formula in zip(cost.counted, cost.formula, strict=True))
