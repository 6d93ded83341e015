"""Asynchronous DGL in one process: with queues it is the reference, with replay it is deterministic."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from greedypipe.buffers.replay import Policy, ReplayBuffer
from greedypipe.buffers.selectors import newest
from greedypipe.pipeline import reference
from greedypipe.pipeline.batch import IMAGE
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.networks import ModelConfig
from greedypipe.pipeline.sections import TrainingConfig
from greedypipe.pipeline.staleness import Handover, lockstep, random_order, simulate
from tests.unit.tiny import CLASSES, DIGITS, DROPOUT, ROWS, STEPS, VGG, differing, learned, make_blocks, method


def build_blocks(count: int = 3, epochs: int = 2, model: ModelConfig = DROPOUT, **sections: Any) -> list[Block]:
    """With dropout, so that a turn too many or too few would show."""
    precision = sections.pop("precision", "fp32")
    return make_blocks(count, model=model, training=TrainingConfig(epochs=epochs, precision=precision), **sections)


def endless_batches(rows: int = ROWS) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(rows, *DIGITS, generator=generator), torch.randint(CLASSES, (rows,), generator=generator)


def stores(count: int, policy: Policy, capacity: int = 4) -> list[ReplayBuffer[Handover]]:
    return [ReplayBuffer(capacity, policy) for _ in range(count)]


class RecordingStore:
    """A queue that remembers all that came, and which reads were given back."""

    def __init__(self) -> None:
        self.handovers: list[Handover] = []
        self.copies: list[Tensor] = []
        self.reads: list[RecordedRead] = []

    def insert(self, item: Handover, timeout_s: float) -> None:
        self.handovers.append(item)
        self.copies.append(item.activation.clone())

    def try_read(self) -> "RecordedRead | None":
        if len(self.reads) == len(self.handovers):
            return None
        self.reads.append(RecordedRead(self.handovers[len(self.reads)]))
        return self.reads[-1]


class RecordedRead:
    def __init__(self, item: Handover) -> None:
        self.item = item
        self.times_done = 0

    def done(self) -> None:
        self.times_done += 1


@pytest.mark.parametrize("loss", ["cross_entropy", "predsim", "reconstruction"])
@pytest.mark.parametrize("model", [DROPOUT, VGG], ids=lambda model: model.name)
@pytest.mark.parametrize("capacity", [1, 4])
def test_lockstep_with_queues_is_the_reference_bit_for_bit(model: ModelConfig, loss: str, capacity: int) -> None:
    expected = build_blocks(model=model, method=method(loss))
    reference.train(expected, itertools.islice(endless_batches(), STEPS))
    blocks = build_blocks(model=model, method=method(loss))
    turns = simulate(blocks, endless_batches(), stores(2, Policy.fifo(), capacity), lockstep(3))
    assert turns == [STEPS] * 3
    assert not differing(learned(blocks), learned(expected))


def test_lockstep_with_queues_is_the_reference_in_bf16_too() -> None:
    expected, blocks = build_blocks(model=VGG, precision="bf16"), build_blocks(model=VGG, precision="bf16")
    reference.train(expected, itertools.islice(endless_batches(), STEPS))
    simulate(blocks, endless_batches(), stores(2, Policy.fifo()), lockstep(3))
    assert not differing(learned(blocks), learned(expected))


def test_any_order_with_queues_is_the_reference_as_long_as_there_is_room() -> None:
    expected = build_blocks()
    reference.train(expected, itertools.islice(endless_batches(), STEPS))
    blocks = build_blocks()
    order = itertools.chain([0] * STEPS, [1] * STEPS, [2] * STEPS, [0])
    assert simulate(blocks, endless_batches(), stores(2, Policy.fifo(), STEPS), order) == [STEPS] * 3
    assert not differing(learned(blocks), learned(expected))


def test_lockstep_with_replay_buffers_of_one_place_is_the_reference_too() -> None:
    expected = build_blocks()
    reference.train(expected, itertools.islice(endless_batches(), STEPS))
    blocks = build_blocks()
    simulate(blocks, endless_batches(), stores(2, Policy.replay(), capacity=1), lockstep(3))
    assert not differing(learned(blocks), learned(expected))


def test_a_single_block_needs_no_store() -> None:
    expected, blocks = build_blocks(1), build_blocks(1)
    reference.train(expected, itertools.islice(endless_batches(), STEPS))
    assert simulate(blocks, endless_batches(), [], lockstep(1)) == [STEPS]
    assert not differing(learned(blocks), learned(expected))


def at_random(seed: int, speeds: tuple[float, ...] = (1.0, 1.0, 1.0)) -> tuple[list[int], list[Block]]:
    blocks = build_blocks()
    turns = simulate(blocks, endless_batches(), stores(2, Policy.replay()), random_order(speeds, seed))
    return turns, blocks


def test_random_order_with_replay_follows_from_the_seed() -> None:
    (one_turns, one), (same_turns, same), (other_turns, other) = at_random(1), at_random(1), at_random(2)
    assert one_turns == same_turns
    assert not differing(learned(one), learned(same))
    assert one_turns != other_turns
    assert differing(learned(one[1:]), learned(other[1:]))


@pytest.mark.parametrize("speeds", [(1.0, 1.0, 1.0), (1.0, 0.3, 1.0), (0.3, 1.0, 1.0)])
def test_in_random_order_every_block_ends_with_its_step_budget(speeds: tuple[float, ...]) -> None:
    turns, blocks = at_random(3, speeds)
    assert [block.step for block in blocks] == [STEPS] * 3
    assert all(block.finished for block in blocks)
    assert all(count >= STEPS for count in turns)


def test_random_order_with_replay_differs_from_lockstep_behind_the_first_block() -> None:
    synchronous = build_blocks()
    reference.train(synchronous, itertools.islice(endless_batches(), STEPS))
    _, blocks = at_random(1)
    assert not differing(learned(blocks[:1]), learned(synchronous[:1]))
    assert differing(learned(blocks[1:2]), learned(synchronous[1:2]))
    assert differing(learned(blocks[2:]), learned(synchronous[2:]))


def test_a_block_with_nothing_to_read_misses_its_turn() -> None:
    blocks = build_blocks(2)
    untouched = learned(blocks[1:])
    assert simulate(blocks, endless_batches(), stores(1, Policy.fifo()), [1, 1, 0]) == [1, 0]
    assert (blocks[0].step, blocks[1].step) == (1, 0)
    assert not differing(learned(blocks[1:]), untouched)


def test_missed_turns_leave_no_trace() -> None:
    expected, blocks = build_blocks(), build_blocks()
    reference.train(expected, itertools.islice(endless_batches(), 2))
    turns = simulate(blocks, endless_batches(), stores(2, Policy.fifo()), [2, 1, 0, 2, 1, 1, 2, 2, 0, 1, 2])
    assert turns == [2, 2, 2]
    assert not differing(learned(blocks), learned(expected))


def test_a_replayed_batch_is_learned_again() -> None:
    blocks = build_blocks(2)
    turns = simulate(blocks, endless_batches(), stores(1, Policy.replay()), [0, 1, 1, 1])
    assert turns == [1, 3]
    assert [block.step for block in blocks] == [1, 3]


def test_a_queue_without_room_is_an_error() -> None:
    with pytest.raises(TimeoutError, match="no room"):
        simulate(build_blocks(2), endless_batches(), stores(1, Policy.fifo(), capacity=2), [0, 0, 0])


def test_a_finished_block_hands_on_with_frozen_weights_and_statistics() -> None:
    blocks, store = build_blocks(2, epochs=1), RecordingStore()
    batches = list(itertools.islice(endless_batches(), 5))
    simulate(blocks, iter(batches), [store], [0, 0, 0])
    frozen = learned(blocks[:1])
    assert simulate(blocks, iter(batches[3:]), [store], [0, 0]) == [2, 0]
    assert blocks[0].step == 3
    assert not differing(learned(blocks[:1]), frozen)
    for handover, (images, labels) in zip(store.handovers[3:], batches[3:], strict=True):
        assert torch.equal(handover.activation, blocks[0].pass_through(images))
        assert torch.equal(handover.batch.labels, labels)


def test_the_simulation_ends_with_the_slowest_block() -> None:
    blocks = build_blocks(2, epochs=1)
    order = iter([0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1])
    assert simulate(blocks, endless_batches(), stores(1, Policy.replay(newest)), order) == [6, 3]
    assert list(order) == [1], "one turn is drawn to see that all have finished"


def test_what_lies_in_a_store_does_not_change() -> None:
    blocks, store = build_blocks(2), RecordingStore()
    simulate(blocks, endless_batches(), [store], [0, 0, 1, 0, 1, 1])
    assert len(store.handovers) == 3
    assert all(torch.equal(item.activation, copy) for item, copy in zip(store.handovers, store.copies, strict=True))


def test_labels_and_image_stay_with_their_activation() -> None:
    blocks, recorded = build_blocks(3), [RecordingStore(), RecordingStore()]
    batches = list(itertools.islice(endless_batches(), 3))
    simulate(blocks, iter(batches), recorded, [0, 1, 0, 0, 1, 1])
    for store in recorded:
        for item, (images, labels) in zip(store.handovers, batches, strict=True):
            assert torch.equal(item.batch.labels, labels)
            assert torch.equal(item.batch.extras[IMAGE], images)


def test_every_read_is_given_back_once() -> None:
    """Also by a block that has finished: the fourth turn of block 1 only hands on."""
    blocks, recorded = build_blocks(3, epochs=1), [RecordingStore(), RecordingStore()]
    assert simulate(blocks, endless_batches(), recorded, [0, 1, 1, 0, 1, 0, 1, 0, 1, 2]) == [4, 4, 1]
    assert [[read.times_done for read in store.reads] for store in recorded] == [[1, 1, 1, 1], [1]]


def test_lockstep_gives_every_block_one_turn_per_round() -> None:
    assert list(itertools.islice(lockstep(3), 8)) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert list(itertools.islice(lockstep(1), 3)) == [0, 0, 0]


def test_random_order_warms_up_with_two_turns_each() -> None:
    assert list(itertools.islice(random_order((1, 1, 1), 0), 6)) == [0, 0, 1, 1, 2, 2]


def test_random_order_follows_from_the_seed() -> None:
    one, same, other = (list(itertools.islice(random_order((1, 1, 1), seed), 60)) for seed in (5, 5, 6))
    assert one == same
    assert one != other


def test_random_order_draws_blocks_in_proportion_to_their_speeds() -> None:
    drawn = Counter(itertools.islice(random_order((1.0, 3.0, 0.0), 0), 6, 4006))
    assert drawn[0] / 4000 == pytest.approx(0.25, abs=0.03)
    assert drawn[1] / 4000 == pytest.approx(0.75, abs=0.03)
    assert drawn[2] == 0
