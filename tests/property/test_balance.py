"""The planner's cut against all cuts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greedypipe.pipeline.balance import TIE, Costs, balanced_starts, processes_per_stage
from greedypipe.workers.placement import Placement

SECONDS = st.floats(0.01, 10)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Costs, list[range]]:
    units = draw(st.integers(1, 7))
    columns = [tuple(draw(st.lists(SECONDS, min_size=size, max_size=size))) for size in (units, units - 1)]
    sent = tuple(draw(st.lists(st.integers(1, 1000), min_size=units, max_size=units)))
    blocks = draw(st.integers(1, units))
    placement = Placement((1,) * draw(st.integers(1, blocks)), blocks)
    return Costs(*columns, sent), [placement.blocks_of(stage) for stage in range(placement.num_stages)]


def slowest_s(costs: Costs, hosting: list[range], starts: tuple[int, ...]) -> float:
    return max(costs.stage_s(starts, blocks) for blocks in hosting)


def sent_bytes(costs: Costs, hosting: list[range], starts: tuple[int, ...]) -> int:
    return sum(costs.sent_bytes[starts[blocks.start] - 1] for blocks in hosting[1:])


@given(problems())
def test_no_cut_is_faster_and_no_equally_fast_one_sends_less(problem: tuple[Costs, list[range]]) -> None:
    costs, hosting = problem
    starts = balanced_starts(costs, hosting)
    every = [(0, *rest) for rest in itertools.combinations(range(1, costs.num_units), hosting[-1].stop - 1)]
    assert starts in every
    least = min(slowest_s(costs, hosting, cut) for cut in every)
    assert slowest_s(costs, hosting, starts) <= least * (1 + TIE) * (1 + 1e-9)
    if all(len(blocks) == 1 for blocks in hosting):
        equal = [cut for cut in every if slowest_s(costs, hosting, cut) <= least * (1 + TIE) * (1 - 1e-9)]
        assert sent_bytes(costs, hosting, starts) <= min(sent_bytes(costs, hosting, cut) for cut in equal or [starts])


def test_a_cut_behind_pooling_wins_where_times_are_equal() -> None:
    seconds = (1.0, 0.005, 1.0)
    assert balanced_starts(Costs(seconds, seconds[:-1], (400, 100, 100)), [range(1), range(1, 2)]) == (0, 2)
    assert balanced_starts(Costs(seconds, seconds[:-1], (100, 400, 400)), [range(1), range(1, 2)]) == (0, 1)


def test_heads_count() -> None:
    """Without them the middle would be best; a head there costs more than two units."""
    costs = Costs((1.1, 4.0, 1.1, 1.1), (1.0,) * 3, (1,) * 4)
    assert balanced_starts(costs, [range(1), range(1, 2)]) != (0, 2)


def test_a_block_costs_its_last_unit_with_the_head_and_what_the_ones_before_add() -> None:
    costs = Costs((1.5, 2.5, 7.0), (3.0, 4.0), (1, 1, 1))
    assert costs.block_s(0, 3) == costs.back_propagation_s == 3 + 4 + 7
    assert [costs.block_s(0, 2), costs.block_s(1, 3)] == [3 + 2.5, 4 + 7]
    assert [costs.block_s(unit, unit + 1) for unit in range(3)] == [1.5, 2.5, 7]
    assert costs.stage_s((0, 1), range(2)) == 1.5 + 4 + 7


@pytest.mark.parametrize("lengths", [(0, 0, 0), (0, -1, 0), (2, 2, 2), (2, 1, 1), (3, 1, 3)])
def test_costs_of_no_or_of_too_few_units_are_refused(lengths: tuple[int, int, int]) -> None:
    alone, before, sent = lengths
    with pytest.raises(ValueError, match="units have n, n - 1 and n costs"):
        Costs((1.0,) * alone, (1.0,) * before, (1,) * sent)


def test_more_blocks_than_units_are_refused() -> None:
    with pytest.raises(ValueError, match="got 3, but the network has 2 layers"):
        balanced_starts(Costs((1.0,) * 2, (1.0,), (1, 1)), [range(3)])


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=4), st.integers(0, 5), st.sampled_from([1, 6, 7, 64]))
def test_processes_that_are_left_over_make_the_slowest_stage_as_fast_as_they_can(
    stage_s: list[float], left: int, batch_size: int
) -> None:
    def slowest_s(replicas: tuple[int, ...]) -> float:
        return max(seconds / count for seconds, count in zip(stage_s, replicas, strict=True))

    processes = len(stage_s) + left
    found = processes_per_stage(stage_s, processes, batch_size)
    allowed = [count for count in range(1, left + 2) if batch_size % count == 0]
    every = [one for one in itertools.product(allowed, repeat=len(stage_s)) if sum(one) <= processes]
    assert found in every
    assert slowest_s(found) == min(map(slowest_s, every))
