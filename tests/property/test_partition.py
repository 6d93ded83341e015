"""Every cut covers the network once, in order, and even cuts are even."""

from itertools import chain, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from greedypipe.pipeline.networks import Layer
from greedypipe.pipeline.partition import Partition, PartitionConfig, even_starts, make_partition

without_deadline = settings(deadline=None)  # the machine may be busy with other tests

WEIGHTED, POOL = nn.Linear(1, 1), nn.MaxPool2d(2)


@st.composite
def valid_cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], int]:
    num_layers = draw(st.integers(1, 60))
    later = draw(st.sets(st.integers(1, num_layers - 1))) if num_layers > 1 else set()
    return (0, *sorted(later)), num_layers


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[Layer], int]:
    """Layers with and without parameters, at least one with, and a possible number of blocks."""
    weighted = draw(st.lists(st.booleans(), min_size=1, max_size=40).filter(any))
    layers = [Layer(f"layer{index}", "", WEIGHTED if has else POOL) for index, has in enumerate(weighted)]
    return layers, draw(st.integers(1, sum(weighted)))


@without_deadline
@given(valid_cuts())
def test_a_partition_has_every_layer_once_in_order(cut: tuple[tuple[int, ...], int]) -> None:
    starts, num_layers = cut
    partition = Partition(starts, num_layers)
    blocks = partition.ranges()
    assert list(chain.from_iterable(blocks)) == list(range(num_layers))
    assert all(blocks)
    assert tuple(block.start for block in blocks) == starts
    assert partition.num_blocks == len(starts)


@without_deadline
@given(st.lists(st.integers(-2, 8), max_size=6), st.integers(0, 7))
def test_a_partition_is_refused_exactly_if_it_would_not(starts: list[int], num_layers: int) -> None:
    edges = [*starts, num_layers]
    if starts[:1] == [0] and all(left < right for left, right in pairwise(edges)):
        assert len(Partition(tuple(starts), num_layers).ranges()) == len(starts)
    else:
        with pytest.raises(ValueError, match="begin with 0 and rise"):
            Partition(tuple(starts), num_layers)


@without_deadline
@given(networks())
def test_an_even_cut_gives_blocks_whose_numbers_of_weighted_layers_differ_by_at_most_one(
    network: tuple[list[Layer], int],
) -> None:
    layers, num_blocks = network
    partition = Partition(tuple(even_starts(layers, num_blocks)), len(layers))
    shares = [sum(layers[index].has_parameters for index in block) for block in partition.ranges()]
    assert len(shares) == num_blocks
    assert min(shares) >= 1
    assert max(shares) - min(shares) <= 1


@without_deadline
@given(networks())
def test_an_even_cut_never_begins_a_later_block_with_a_pool(network: tuple[list[Layer], int]) -> None:
    layers, num_blocks = network
    assert all(layers[start].has_parameters for start in even_starts(layers, num_blocks)[1:])


@without_deadline
@given(networks())
def test_boundaries_by_name_repeat_the_cut_they_were_read_from(network: tuple[list[Layer], int]) -> None:
    layers, num_blocks = network
    even = make_partition(PartitionConfig(blocks=num_blocks), layers)
    names = tuple(layers[start].name for start in even.starts[1:])
    assert make_partition(PartitionConfig(blocks=num_blocks, boundaries=names), layers) == even
