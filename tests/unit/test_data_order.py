"""Which samples form which batch."""

import torch

from greedypipe.workers.data.order import SequentialOrder, ShuffledOrder


def epoch_of(order: ShuffledOrder, epoch: int) -> list[int]:
    first = epoch * order.num_batches
    return torch.cat([order.indices(first + step) for step in range(order.num_batches)]).tolist()


def test_every_sample_comes_once_per_epoch_in_another_order_each_time() -> None:
    order = ShuffledOrder(num_samples=23, batch_size=5, drop_last=False, seed=3)
    first, second = epoch_of(order, 0), epoch_of(order, 1)
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second


def test_the_last_batch_is_uneven_or_left_out() -> None:
    uneven = ShuffledOrder(num_samples=23, batch_size=5, drop_last=False, seed=3)
    dropped = ShuffledOrder(num_samples=23, batch_size=5, drop_last=True, seed=3)
    assert [len(uneven.indices(step)) for step in range(6)] == [5, 5, 5, 5, 3, 5]
    assert [len(dropped.indices(step)) for step in range(6)] == [5] * 6
    assert dropped.num_batches == 4


def test_a_batch_size_that_divides_the_samples_leaves_no_uneven_batch() -> None:
    order = ShuffledOrder(num_samples=20, batch_size=5, drop_last=False, seed=3)
    assert order.num_batches == 4 and len(order.indices(3)) == 5


def test_indices_do_not_depend_on_what_was_asked_before() -> None:
    walked, jumped = (ShuffledOrder(23, 5, drop_last=False, seed=3) for _ in range(2))
    in_order = [walked.indices(batch_id).clone() for batch_id in range(12)]
    backwards = [jumped.indices(batch_id).clone() for batch_id in reversed(range(12))]
    assert in_order and all(torch.equal(*pair) for pair in zip(in_order, reversed(backwards), strict=True))


def test_another_seed_gives_another_order() -> None:
    assert epoch_of(ShuffledOrder(23, 5, False, seed=3), 0) != epoch_of(ShuffledOrder(23, 5, False, seed=4), 0)


def test_the_epoch_counts_complete_passes() -> None:
    order = ShuffledOrder(num_samples=23, batch_size=5, drop_last=False, seed=3)
    assert [order.epoch(batch_id) for batch_id in (0, 4, 5, 14, 15)] == [0, 0, 1, 2, 3]


def test_the_held_out_part_is_read_in_order_with_its_uneven_last_batch() -> None:
    order = SequentialOrder(num_samples=7, batch_size=3)
    assert [order.indices(batch_id).tolist() for batch_id in range(order.num_batches)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]
