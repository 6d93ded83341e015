"""Methods whose layers learn without labels: against naive loops, as DGL without what they add, and what they refuse."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline import reference
from greedypipe.pipeline.batch import COLOURS, IMAGE, MASK, ROTATION
from greedypipe.pipeline.method import Sample
from greedypipe.pipeline.methods import build_method
from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.networks.patches import CutPatches
from greedypipe.workers.data.source import BatchSource
from tests.unit.test_forward_only import naive_contrast
from tests.unit.tiny import CPU, differing, make_site, method
from tests.wanted import TWO_VIEWS, WANTED

MAP = (6, 4, 4)
RGB = (3, 8, 8)
PRETEXTS = ("rotation", "colourisation", "inpainting")


def built(name: str, shape: tuple[int, ...] = MAP, *, views: int = 1, layers: tuple[Layer, ...] = (), **keys: Any) -> Any:
    site = make_site(shape, images=RGB, index=1, num_blocks=4, layers=layers)
    site.task.views = views
    return build_method(method(name, **keys), site)


def sample(shape: tuple[int, ...] = MAP, rows: int = 8, extras: Mapping[str, Tensor] | None = None) -> Sample:
    h = torch.randn(rows, *shape, requires_grad=True)
    return Sample(torch.arange(rows) % 3, extras or {}, input=h, output=h)


def extras_of(rows: int = 8) -> dict[str, Tensor]:
    masks = torch.zeros(rows, *RGB[1:], dtype=torch.uint8)
    masks[:, 2:6, 1:5] = 1
    image = torch.randn(rows, *RGB)
    return {ROTATION: torch.arange(rows) % 4, COLOURS: image, IMAGE: image, MASK: masks}


def probe_of(one: Any, given: Sample) -> float:
    return functional.cross_entropy(one.head(given.h), given.labels).item()


# Formulas


@pytest.mark.parametrize("views", [2, 4])
def test_simclr_draws_the_views_of_a_sample_together(views: int) -> None:
    one, given = built("simclr", views=views), sample()
    numbers = [row // views for row in range(8)]
    contrast = naive_contrast(one.projection(given.h).double(), numbers, 0.5)
    assert one.loss(given).item() == pytest.approx(contrast + probe_of(one, given), rel=1e-5)


def test_an_angle_is_a_class_of_its_own_head() -> None:
    one, given = built("rotation"), sample(extras=extras_of())
    angles = one.angle_head(given.h).log_softmax(1)
    expected = -sum(angles[row, row % 4].item() for row in range(8)) / 8
    assert angles.shape == (8, 4)
    assert one.loss(given).item() == pytest.approx(expected + probe_of(one, given), rel=1e-5)


def test_colours_are_compared_pixel_by_pixel() -> None:
    one, given = built("colourisation"), sample(extras=extras_of())
    pairs = zip(one.decoder(given.h).flatten().tolist(), given.extras[COLOURS].flatten().tolist(), strict=True)
    expected = sum(abs(found - wanted) for found, wanted in pairs) / given.extras[COLOURS].numel()
    assert one.loss(given).item() == pytest.approx(expected + probe_of(one, given), rel=1e-5)


def test_nothing_but_the_hole_is_painted() -> None:
    one, given = built("inpainting"), sample(extras=extras_of())
    found, wanted = one.decoder(given.h), given.extras[IMAGE]
    inside = [
        (found[row, channel, y, x] - wanted[row, channel, y, x]).item() ** 2
        for row in range(8)
        for channel in range(3)
        for y in range(2, 6)
        for x in range(1, 5)
    ]
    assert one.loss(given).item() == pytest.approx(sum(inside) / len(inside) + probe_of(one, given), rel=1e-5)


def of_patches(side: int = 2) -> tuple[Layer, ...]:
    return (Layer("one", "one", nn.Sequential(CutPatches(side, *RGB[1:]), nn.Identity())),)


@pytest.mark.parametrize("shape", [(49, 6, 2, 2), (49, 6)], ids=str)
def test_patches_are_told_from_others_by_those_above_them(shape: tuple[int, ...]) -> None:
    """InfoNCE one patch at a time; 7 x 7 patches, the negatives drawn as the method draws them."""
    one, given = built("greedy_infomax", shape, layers=of_patches(), predictions=3, negatives=4), sample(shape, rows=2)
    torch.manual_seed(5)
    found = one.loss(given).item()
    z = (given.h if len(shape) == 2 else given.h.mean((3, 4))).detach().double().view(2, 7, 7, 6)
    every = z.reshape(-1, 6)
    torch.manual_seed(5)
    losses = []
    for k in (1, 2, 3):
        weight = one.predictors[k - 1].weight.detach().double()
        places = [(n, row, column) for n in range(2) for row in range(7 - k - 1) for column in range(7)]
        drawn = torch.randint(98, (len(places), 4))
        each = []
        for (n, row, column), others in zip(places, drawn.tolist(), strict=True):
            against = [z[n, row + k + 1, column], *(every[other] for other in others)]
            scores = [math.exp(float((weight @ patch) @ z[n, row, column])) for patch in against]
            each.append(-math.log(scores[0] / sum(scores)))
        losses.append(sum(each) / len(each))
    assert found == pytest.approx(sum(losses) / 3 + probe_of(one, given), rel=1e-4)


def test_patches_predict_no_further_than_the_image_has_rows() -> None:
    assert len(built("greedy_infomax", (49, 6), layers=of_patches()).predictors) == 5
    assert len(built("greedy_infomax", (9, 6), layers=of_patches(4)).predictors) == 1


@pytest.mark.parametrize("name", [*PRETEXTS, "simclr", "greedy_infomax"])
def test_labels_reach_the_probe_alone(name: str) -> None:
    patches = name == "greedy_infomax"
    shape = (49, *MAP) if patches else MAP
    one, given = built(name, shape, views=2, layers=of_patches() if patches else ()), sample(shape, extras=extras_of())
    torch.manual_seed(0)
    (right,) = torch.autograd.grad(one.loss(given), given.h)
    torch.manual_seed(0)
    (wrong,) = torch.autograd.grad(one.loss(replace(given, labels=(given.labels + 1) % 3)), given.h)
    assert torch.equal(right, wrong) and right.any()


@pytest.mark.parametrize("name", PRETEXTS)
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9])
def test_what_is_no_share_of_the_pretext_task_is_cross_entropy(name: str, weight: float) -> None:
    one, given = built(name, weight=weight), sample(extras=extras_of())
    expected = weight * one.pretext_loss(given).item() + (1 - weight) * probe_of(one, given)
    assert one.loss(given).item() == pytest.approx(expected, rel=1e-6)


# Where two methods are one


@pytest.mark.parametrize("name", PRETEXTS)
def test_without_its_task_a_method_is_decoupled_greedy_learning(name: str) -> None:
    with_task, plain = (trained(name, one) for one in ("method.weight=0", "method.name=cross_entropy"))
    assert not differing(with_task, plain)


def trained(name: str, override: str) -> dict[str, Tensor]:
    """Layers after three batches of the data that the method wants."""
    network = ("model.name=vgg8b", "model.width=0.1", "model.dropout=0.2", "partition.blocks=3", "data.batch_size=20")
    config = load_config(None, ["data.name=digits", *network, *WANTED[name], f"method.name={name}", override])
    plan = make_plan(config, 1)
    blocks = [plan.blueprint.build_block(index, CPU) for index in range(3)]
    source = BatchSource(config.data, 0)
    batches = map(source.training_batch, range(3))
    reference.train(blocks, ((one.images, one.labels, one.extras) for one in batches))
    return {key: value for block in blocks for key, value in block.layer_state().items()}


# What cannot be

TINY = ("data.name=digits", "model.name=vgg8b", "model.width=0.1", "partition.blocks=2")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["method.name=simclr"], "data.views: got 1 with method.name=simclr, allowed: 2 or more: it compares views"),
        (
            ["method.name=overlap", "method.local.name=simclr"],
            "data.views: got 1 with method.name=overlap, allowed: 2 or more: it compares views",
        ),
        (
            ["method.name=simclr", *TWO_VIEWS, "placement.replicas=[2,1]", "data.drop_last=true"],
            "placement.replicas: got 2 with method.name=simclr, allowed: 1: its loss compares",
        ),
        (["method.name=rotation"], "data.pretext: got none that gives 'rotation', allowed: rotation, with method.name="),
        (["method.name=colourisation"], "data.pretext: got none that gives 'colours', allowed: grey, with method.name="),
        (["method.name=inpainting"], "data.pretext: got none that gives 'mask', allowed: mask, with method.name=inpainting"),
        (["method.name=greedy_infomax"], "model.patches: got 0 with method.name=greedy_infomax, allowed: the side of"),
        (
            ["method.name=greedy_infomax", "model.patches=8"],
            "model.patches: got patches in 1 rows, allowed: in 3 or more, by smaller patches",
        ),
        (
            ["method.name=inpainting", "data.pretext=mask", "model.patches=4"],
            "method.name: got inpainting, which needs 'image', allowed: methods that need labels or mask",
        ),
        (
            ["method.name=colourisation", *WANTED["colourisation"], "model.patches=4"],
            "method.name: got colourisation, which needs 'colours', allowed: methods that need labels",
        ),
        (["method.name=rotation", "method.weight=1.5"], "method.weight: got 1.5"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(overrides: list[str], line: str) -> None:
    stages = 3 if any(one.startswith("placement") for one in overrides) else 2
    with pytest.raises(ConfigError) as refused:
        make_plan(load_config(None, [*TINY, *overrides]), stages)
    assert line in str(refused.value) and "\n" not in str(refused.value)
