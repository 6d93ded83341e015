"""Where a network is cut, and which cuts are refused."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from greedypipe.pipeline.networks import MODEL_FAMILY, Layer
from greedypipe.pipeline.partition import Partition, PartitionConfig, even_starts, make_partition


def layers_of(plan: str) -> list[Layer]:
    """``"a b . c"``: layers with parameters by name, and a pool (``pool1``, ...) for every dot."""
    layers: list[Layer] = []
    for entry in plan.split():
        pool = entry == "."
        name = f"pool{sum(not layer.has_parameters for layer in layers) + 1}" if pool else entry
        layers.append(Layer(name, name, nn.MaxPool2d(2) if pool else nn.Linear(1, 1)))
    return layers


def names_by_block(partition: Partition, layers: list[Layer]) -> list[str]:
    return [" ".join(layers[index].name for index in block) for block in partition.ranges()]


def cut(plan: str, blocks: int, *boundaries: str) -> list[str]:
    layers = layers_of(plan)
    return names_by_block(make_partition(PartitionConfig(blocks=blocks, boundaries=boundaries), layers), layers)


def test_a_partition_lists_the_layers_of_every_block() -> None:
    partition = Partition((0, 2, 5), 6)
    assert partition.num_blocks == 3
    assert [list(block) for block in partition.ranges()] == [[0, 1], [2, 3, 4], [5]]


@pytest.mark.parametrize(
    "starts", [(), (1,), (1, 2), (0, 0), (0, 2, 2), (0, 3, 1), (0, 4), (0, 5), (0, -1), (-1, 2), (0, 2, 4)], ids=str
)
def test_a_partition_with_an_empty_block_or_a_lost_layer_is_refused(starts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"begin with 0 and rise, all below 4 layers, got \[") as caught:
        Partition(starts, 4)
    assert str(list(starts)) in str(caught.value)


def test_blocks_get_an_even_share_of_the_layers_with_parameters() -> None:
    assert cut("a b c d", 1) == ["a b c d"]
    assert cut("a b c d", 2) == ["a b", "c d"]
    assert cut("a b c d", 4) == ["a", "b", "c", "d"]


def test_earlier_blocks_are_smaller_where_shares_cannot_be_even() -> None:
    assert cut("a b c", 2) == ["a", "b c"]
    assert cut("a b c d e f g", 4) == ["a", "b c", "d e", "f g"]


def test_a_pool_stays_with_the_layer_before_it() -> None:
    assert cut("a . b . c .", 3) == ["a pool1", "b pool2", "c pool3"]
    assert cut("a . . b c .", 3) == ["a pool1 pool2", "b", "c pool3"]


def test_a_pool_does_not_count_as_a_layer() -> None:
    assert cut("a . . . b c d", 2) == ["a pool1 pool2 pool3 b", "c d"]


def test_vgg8b_is_cut_behind_its_pools() -> None:
    with torch.device("meta"):
        layers = list(MODEL_FAMILY.default().build((3, 32, 32), 10).layers)
    assert names_by_block(make_partition(PartitionConfig(blocks=4), layers), layers) == [
        "conv1",
        "conv2 pool1 conv3",
        "conv4 pool2 conv5 pool3",
        "conv6 pool4 fc1",
    ]


@pytest.mark.parametrize(("blocks", "expected"), [(1, [". a b"]), (2, [". a", "b"])])
def test_a_first_layer_without_parameters_goes_with_the_first_that_has_some(blocks: int, expected: list[str]) -> None:
    """A custom network may begin with a flattening; alone in a block it would leave nothing to train."""
    assert cut(". a b", blocks) == [names.replace(".", "pool1") for names in expected]


@pytest.mark.parametrize("plan", ["a . b", ". a b"])
def test_the_number_of_layers_with_parameters_limits_the_number_of_blocks(plan: str) -> None:
    assert len(even_starts(layers_of(plan), 2)) == 2
    with pytest.raises(ValueError, match=r"partition\.blocks: got 3, but the network has 2 layers with parameters"):
        even_starts(layers_of(plan), 3)


def test_boundaries_are_the_first_layers_of_the_blocks_behind_the_first() -> None:
    assert cut("a . b . c", 3, "b", "c") == ["a pool1", "b pool2", "c"]
    assert cut("a . b . c", 2, "c") == ["a pool1 b pool2", "c"]


def test_a_boundary_may_be_a_pool() -> None:
    assert cut("a . b", 2, "pool1") == ["a", "pool1 b"]


@pytest.mark.parametrize(
    ("blocks", "boundaries", "message"),
    [
        (2, ("b", "c"), "partition.boundaries: 2 blocks have 1 boundaries, got 2: b, c"),
        (4, ("b",), "partition.boundaries: 4 blocks have 3 boundaries, got 1: b"),
        (1, ("b",), "partition.boundaries: 1 blocks have 0 boundaries, got 1: b"),
        (2, ("x",), "'x' cannot begin a block; the network's layers after the first are pool1, b, c"),
        (3, ("x", "y"), "'x', 'y' cannot begin a block"),
        (2, ("a",), "'a' cannot begin a block"),
        (3, ("c", "b"), "partition.boundaries must be in the network's order, got c, b"),
        (3, ("b", "b"), "partition.boundaries must be in the network's order, got b, b"),
    ],
)
def test_impossible_boundaries_are_refused(blocks: int, boundaries: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        cut("a . b c", blocks, *boundaries)
    assert message in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("blocks", 0), ("boundaries", "conv2"), ("stages", 2)])
def test_impossible_values_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        PartitionConfig(**{key: value})
