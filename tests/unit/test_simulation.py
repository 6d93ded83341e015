"""The simulator against closed forms."""

import pytest

from benchmarks.simulation.costs import LinkCost, Pipeline, StageCost
from benchmarks.simulation.decoupled import simulate
from benchmarks.simulation.schedules import SCHEDULES, Costs, run_lists
from greedypipe.buffers.replay import BuffersConfig

EVEN = StageCost(1.0, 2.0)
REPLAY = BuffersConfig(policy="replay", capacity=4)


@pytest.mark.parametrize("policy", ["fifo", "replay"])
def test_equal_stages_do_one_batch_in_the_time_of_one(policy: str) -> None:
    outcomes = simulate(Pipeline([EVEN] * 4, buffers=BuffersConfig(policy=policy)), 60, 20)  # type: ignore[arg-type]
    assert [outcome.batches_per_s for outcome in outcomes] == pytest.approx([1 / 3] * 4)
    assert all(outcome.wait_input_fraction == outcome.wait_room_fraction == 0 for outcome in outcomes)


def test_with_queues_the_slowest_stage_sets_the_pace_and_nothing_is_lost() -> None:
    stages = [EVEN, StageCost(2.0, 4.0), EVEN]
    before, slow, behind = simulate(Pipeline(stages), 80, 40)
    assert {round(outcome.batches_per_s, 6) for outcome in (before, slow, behind)} == {round(1 / 6, 6)}
    assert before.wait_room_fraction == pytest.approx(0.5) and behind.wait_input_fraction == pytest.approx(0.5)
    assert slow.wait_input_fraction == slow.wait_room_fraction == 0
    assert all(outcome.dropped == 0 and outcome.reuse_mean in (0, 1) for outcome in (before, slow, behind))
    assert slow.staleness_max <= 4 and slow.peak_slots == Pipeline(stages).slots


def test_with_replay_nobody_waits_for_a_slower_stage() -> None:
    before, slow, behind = simulate(Pipeline([EVEN, StageCost(2.0, 4.0), EVEN], buffers=REPLAY), 80, 40)
    assert before.batches_per_s == behind.batches_per_s == pytest.approx(1 / 3)
    assert slow.batches_per_s == pytest.approx(1 / 6)
    assert before.wait_room_fraction == behind.wait_input_fraction == 0
    assert slow.dropped > 0 and behind.reuse_mean == pytest.approx(2, abs=0.1)


def test_a_slow_link_sets_the_pace() -> None:
    link = LinkCost(sent_bytes=1e6, bytes_per_s=1e5, latency_s=0.5)
    outcomes = simulate(Pipeline([EVEN, EVEN], link=link), 60, 20)
    assert outcomes[1].batches_per_s == pytest.approx(1e5 / 1e6)


def test_latency_alone_costs_nothing_once_the_pipeline_is_full() -> None:
    outcomes = simulate(Pipeline([EVEN, EVEN], link=LinkCost(latency_s=2.0)), 60, 20)
    assert outcomes[1].batches_per_s == pytest.approx(1 / 3)


def test_more_stages_than_cores_share_them() -> None:
    outcomes = simulate(Pipeline([EVEN, StageCost(1.0, 1.0), EVEN, StageCost(2.0, 2.0)], cores=2), 600, 300)
    assert outcomes[-1].batches_per_s == pytest.approx(2 / 12, rel=0.01)


def test_sleeping_takes_no_core() -> None:
    asleep, awake = StageCost(1.0, 2.0, slow_factor=2.0), StageCost(1.0, 5.0)
    assert simulate(Pipeline([EVEN, asleep], cores=2), 120, 40)[-1].batches_per_s == pytest.approx(1 / 6)
    rates = [simulate(Pipeline([stage] * 3, cores=2), 120, 40)[-1].batches_per_s for stage in (asleep, awake)]
    assert rates[0] > 1.2 * rates[1] and rates[1] == pytest.approx(2 / 18, rel=0.05)


def test_two_replicas_of_the_slow_stage_are_as_fast_as_the_others() -> None:
    outcomes = simulate(Pipeline([EVEN, StageCost(2.0, 4.0, replicas=2), EVEN]), 80, 40)
    assert outcomes[-1].batches_per_s == pytest.approx(1 / 3)
    assert all(outcome.dropped == 0 for outcome in outcomes)


def test_a_seed_gives_the_same_again_and_jitter_costs_throughput() -> None:
    jittery, small = [StageCost(1.0, 2.0, jitter=1.0)] * 4, BuffersConfig(capacity=1)
    first, again = (simulate(Pipeline(jittery, buffers=small), 500, 100) for _ in range(2))
    assert first == again != simulate(Pipeline(jittery, buffers=small, seed=1), 500, 100)
    assert 0.5 / 3 < first[-1].batches_per_s < 1 / 3
    roomy = simulate(Pipeline(jittery, buffers=BuffersConfig(capacity=64)), 500, 100)
    assert roomy[-1].batches_per_s > first[-1].batches_per_s


BUBBLES = {
    # Closed forms (p - 1) / (m + p - 1), with two chunks (p - 1) / (2 m + p - 1); zero-bubble from torch's own lists.
    "GPipe": {4: 0.429, 8: 0.273, 16: 0.158, 32: 0.086},
    "1F1B": {4: 0.429, 8: 0.273, 16: 0.158, 32: 0.086},
    "interleaved": {4: 0.273, 8: 0.158, 16: 0.086, 32: 0.045},
    "zero-bubble": {4: 0.111, 8: 0.059, 16: 0.030, 32: 0.015},
}


@pytest.mark.parametrize(("name", "micro_batches"), [(name, m) for name, forms in BUBBLES.items() for m in forms])
def test_bubbles_of_the_schedules_are_the_known_ones(name: str, micro_batches: int) -> None:
    flushed = run_lists(SCHEDULES[name](4, micro_batches), [Costs(1.0, 1.0, 1.0)] * 4)
    assert flushed.bubble == pytest.approx(BUBBLES[name][micro_batches], abs=6e-4)


def test_a_schedule_waits_for_slow_links() -> None:
    lists, costs = SCHEDULES["1F1B"](4, 4), [Costs(1.0, 1.0, 1.0)] * 4
    slow = run_lists(lists, costs, LinkCost(latency_s=0.1))
    assert slow.seconds > run_lists(lists, costs).seconds + 6 * 0.1 * 0.99
