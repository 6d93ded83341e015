"""What crosses the boundary between two stages."""

from fractions import Fraction

import pytest
import torch

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.launch.planning.traffic import bytes_after
from greedypipe.pipeline.methods.cross_entropy import CrossEntropy
from greedypipe.workers.links.messages import Kind

TINY = ("data.name=digits", "data.batch_size=64", "model.name=mlp", "model.hidden=16", "partition.blocks=4")


class NeedsDepth(CrossEntropy):
    """A user's own method."""

    needs = frozenset({"labels", "depth"})


def plan(*overrides: str, processes: int = 4) -> Plan:
    return make_plan(load_config(None, [*TINY, *overrides]), processes)


def names(made: Plan, stage: int, kind: Kind) -> list[str]:
    return [spec.name for spec in made.edges[stage].specs[kind]]


def test_there_is_an_edge_between_neighbours_and_none_behind_the_last() -> None:
    assert [edge.sender for edge in plan().edges] == [0, 1, 2]
    assert plan(processes=1).edges == ()
    assert plan(processes=1).carried_after(0) == ()


@pytest.mark.parametrize("processes", [2, 4])
def test_images_travel_as_far_as_a_block_needs_them(processes: int) -> None:
    made = plan("method.name=reconstruction", processes=processes)
    carried = [made.carried_after(stage) for stage in range(processes)]
    # The last block learns through the classifier alone: in four stages nothing before it needs to send images.
    assert carried == {2: [("image", "labels"), ()], 4: [("image", "labels")] * 2 + [("labels",), ()]}[processes]
    assert names(made, 0, Kind.TRAIN) == ["activation", "image", "labels"]
    assert names(made, 0, Kind.EVALUATE) == ["activation", "labels", "ensemble"]


def test_without_a_need_nothing_but_labels_accompanies_the_activation() -> None:
    assert all(edge.carried == ("labels",) for edge in plan().edges)


def test_the_activation_is_that_of_the_last_block_of_the_stage() -> None:
    made = plan("training.precision=bf16", "link.dtype=int8", processes=2)
    (activation,) = (spec for spec in made.edges[0].specs[Kind.TRAIN] if spec.name == "activation")
    assert activation.shape == made.blueprint.shapes[1].output
    assert (activation.dtype, made.edges[0].encodings) == (torch.bfloat16, {"activation": "int8"})


def test_a_need_that_no_message_can_carry_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        plan(f"method.name={__name__}:NeedsDepth")
    assert str(caught.value) == (
        f"method.name: got {__name__}:NeedsDepth, which needs 'depth', allowed: methods that need image or labels"
    )


def test_a_share_of_a_batch_is_rounded_up() -> None:
    edge = plan().edges[0]
    assert [edge.layout(share).max_rows for share in (Fraction(1), Fraction(1, 2), Fraction(1, 3))] == [64, 32, 22]


def test_the_planner_counts_the_bytes_that_are_sent() -> None:
    made = plan("link.dtype=int8")
    sent = bytes_after(made.blueprint, made.config.link, 64)
    assert list(sent[:3]) == [edge.layout().message_bytes(Kind.TRAIN, 64) for edge in made.edges]
