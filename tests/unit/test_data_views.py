"""Views, pretext tasks, patches and resized crops: what batches hold, how far it travels, and that nothing else changes."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.batch import COLOURS, IMAGE, LABELS, MASK, ROTATION
from greedypipe.pipeline.method import LocalLoss, Sample
from greedypipe.pipeline.reference import train
from greedypipe.workers.data.augment import resized_crop
from greedypipe.workers.data.source import BatchSource, LoadedBatch
from greedypipe.workers.links.messages import Kind

HERE = "tests.unit.test_data_views"
COLOURED = ["data.name=synthetic", "data.shape=[3,8,8]", "data.samples=40", "data.batch_size=8"]
SMALL = [*COLOURED, "model.name=basic_cnn", "model.width=0.05", "training.epochs=1"]


class Guesses(LocalLoss):
    """Needs the angle, the mask, or two views, as its name says; and the image."""

    def loss(self, sample: Sample) -> Tensor:
        noticed = sum(tensor.float().mean() for name, tensor in sample.extras.items() if name in self.needs)
        return self.task.loss(self.head(sample.h), sample.labels) + 0 * noticed


class Turned(Guesses):
    needs = frozenset({LABELS, ROTATION})


class Blotted(Guesses):
    needs = frozenset({LABELS, IMAGE, MASK})


class Grey(Guesses):
    needs = frozenset({LABELS, COLOURS})


class Compared(Guesses):
    views: ClassVar[int] = 2


def source(*overrides: str, seed: int = 3) -> BatchSource:
    return BatchSource(load_config(None, [*COLOURED, *overrides]).data, seed)


def batch(*overrides: str, number: int = 1, seed: int = 3) -> LoadedBatch:
    return source(*overrides, seed=seed).training_batch(number)


def test_one_view_is_the_first_of_several_bit_for_bit() -> None:
    one, two = batch(), batch("data.views=2")
    assert torch.equal(two.images[::2], one.images) and torch.equal(two.labels[::2], one.labels)
    assert torch.equal(two.labels[1::2], one.labels) and not torch.equal(two.images[1::2], one.images)
    assert two.images.is_contiguous() and one.extras == two.extras == {}
    assert torch.equal(batch("data.views=2").images, two.images)
    four = batch("data.views=4").images
    assert torch.equal(four[1::4], two.images[1::2]) and len({view.numpy().tobytes() for view in four}) > 24


def test_evaluation_sees_one_view() -> None:
    one, two = (list(source(f"data.views={views}").evaluation_batches()) for views in (1, 2))
    assert all(torch.equal(left.images, right.images) for left, right in zip(one, two, strict=True))


@pytest.mark.parametrize("views", [1, 4])
def test_rotation_turns_every_row_by_the_angle_it_tells(views: int) -> None:
    plain, turned = (batch(f"data.views={views}", *more) for more in ((), ("data.pretext=rotation",)))
    angles = turned.extras[ROTATION]
    assert angles.dtype == torch.int64 and angles.shape == turned.labels.shape
    for before, after, angle in zip(plain.images, turned.images, angles.tolist(), strict=True):
        assert torch.equal(torch.rot90(before, angle, (1, 2)), after)
    if views == 4:
        assert angles.tolist() == [0, 1, 2, 3] * 8
    else:
        more = [batch("data.pretext=rotation", number=number).extras[ROTATION] for number in range(5)]
        assert set(torch.cat(more).tolist()) == {0, 1, 2, 3} and not torch.equal(more[0], more[1])


def test_grey_images_have_the_brightness_of_the_coloured_ones() -> None:
    plain, grey = batch(), batch("data.pretext=grey")
    assert torch.equal(grey.extras[COLOURS], plain.images)
    pixels, coloured = grey.images * 0.25 + 0.5, plain.images * 0.25 + 0.5
    brightness = 0.299 * coloured[:, 0] + 0.587 * coloured[:, 1] + 0.114 * coloured[:, 2]
    for channel in range(3):
        torch.testing.assert_close(pixels[:, channel], brightness)
    (first, *_), (seen, *_) = (list(source(*more).evaluation_batches()) for more in ((), ("data.pretext=grey",)))
    assert not torch.equal(first.images, seen.images) and torch.equal(seen.images[:, 0], seen.images[:, 2])


def test_a_mask_blots_out_a_square_of_half_the_height() -> None:
    plain, blotted = batch(), batch("data.pretext=mask")
    mask = blotted.extras[MASK]
    assert mask.dtype == torch.uint8 and mask.shape == (8, 8, 8)
    assert mask.sum((1, 2)).tolist() == [16] * 8 and mask.amax(1).sum(1).tolist() == [4] * 8
    assert torch.equal(blotted.images, plain.images * (1 - mask[:, None].float()))
    assert torch.equal(blotted.extras[IMAGE], plain.images)
    assert len({one.numpy().tobytes() for one in mask}) > 4
    (first, *_), (seen, *_) = (list(source(*more).evaluation_batches()) for more in ((), ("data.pretext=mask",)))
    assert torch.equal(first.images, seen.images)


def test_resized_crops_depend_on_seed_epoch_and_sample_alone() -> None:
    names = ("data.augment=resized_crop_flip", "data.batch_size=20")
    apart = source("data.augment=resized_crop_flip")
    for one, other in ((source(*names), False), (source(*names, seed=4), True)):
        together = torch.cat([one.training_batch(number).images for number in range(2)])
        alone = torch.cat([apart.training_batch(number).images for number in range(5)])
        assert torch.equal(together, alone) != other
    assert not torch.equal(apart.training_batch(0).images, apart.training_batch(5).images)
    assert not (alone == alone.amin()).all((1, 2, 3)).any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_resized_crop_is_a_part_enlarged(dtype: torch.dtype) -> None:
    image = (torch.rand(3, 16, 12, generator=torch.Generator().manual_seed(0)) * 255).to(dtype)
    assert torch.equal(resized_crop(image, (1 - 1e-9, 0.5, 0.5)), image)
    part = interpolate(image[None, :, 2:16, 0:10].float(), (16, 12), mode="bilinear", align_corners=False)[0]
    cut = resized_crop(image, (0.0, 0.999, 0.0))
    assert cut.dtype == dtype and torch.equal(cut, part if dtype is torch.float32 else part.round().to(dtype))


def plan_of(method: str, *overrides: str) -> Plan:
    return make_plan(load_config(None, [*SMALL, f"method.name={HERE}:{method}", *overrides]), 2)


def carried(plan: Plan) -> Sequence[Any]:
    return [spec.name for spec in plan.edges[0].specs[Kind.TRAIN]]


def test_what_methods_need_travels_as_far_as_a_block_needs_it() -> None:
    turned = plan_of("Turned", "data.pretext=rotation", "partition.blocks=3")
    assert carried(turned) == ["activation", LABELS, ROTATION]
    # The last block learns by the labels: nothing else travels to it.
    last = plan_of("Turned", "data.pretext=rotation", "partition.blocks=2")
    assert carried(last) == ["activation", LABELS]
    blotted = plan_of("Blotted", "data.pretext=mask", "data.views=2", "partition.blocks=3")
    assert carried(blotted) == ["activation", IMAGE, LABELS, MASK]
    assert blotted.edges[0].layout().max_rows == 16


@pytest.mark.parametrize(
    ("method", "overrides", "complaint"),
    [
        ("Turned", [], "data.pretext: got none that gives 'rotation', allowed: rotation, with method.name="),
        ("Blotted", ["data.pretext=grey"], "data.pretext: got none that gives 'mask', allowed: mask"),
        ("Grey", [], "data.pretext: got none that gives 'colours', allowed: grey"),
        ("Compared", [], "data.views: got 1 with method.name="),
        ("Compared", ["data.views=2", "data.augment=none"], "data.views: got 2 with data.augment=none, allowed: 1"),
        (
            "Blotted",
            ["data.pretext=mask", "model.patches=4"],
            "which needs 'image', allowed: methods that need labels",
        ),
        ("Guesses", ["model.patches=5"], "model.patches: got 5 for images 3 x 8 x 8, allowed: even numbers"),
        ("Guesses", ["data.pretext=grey", "data.shape=[1,8,8]"], "for samples 1 x 8 x 8: only images of 3 channels"),
        ("Guesses", ["data.pretext=rotation", "data.shape=[3,8,6]"], "for samples 3 x 8 x 6: only square images"),
        ("Guesses", ["data.views=3"], "data.views: got 3, allowed: 1, 2 or 4"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(method: str, overrides: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        plan_of(method, "partition.blocks=2", *overrides)
    assert complaint in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("Turned", ["data.pretext=rotation"]),
        ("Blotted", ["data.pretext=mask", "data.views=4"]),
        ("Grey", ["data.pretext=grey"]),
        ("Compared", ["data.views=2"]),
        ("Guesses", ["model.patches=4"]),
    ],
)
def test_blocks_learn_from_them(method: str, overrides: list[str]) -> None:
    plan = plan_of(method, "partition.blocks=2", *overrides)
    blocks = [plan.blueprint.build_block(index, torch.device("cpu")) for index in range(2)]
    batches = [BatchSource(plan.config.data, 0, plan.data).training_batch(number) for number in range(3)]
    losses = train(blocks, ((one.images, one.labels, one.extras) for one in batches))
    assert torch.tensor(losses).isfinite().all() and losses[0] != losses[1]
    _, outputs = blocks[1].predict(blocks[0].predict(batches[0].images)[0])
    assert outputs.shape == (8 * plan.config.data.views, 10)


def test_patches_are_seen_each_on_its_own() -> None:
    blueprint = plan_of("Guesses", "partition.blocks=2", "model.patches=4").blueprint
    assert blueprint.shapes[0].output[:2] == (9, 8)
    block = blueprint.build_block(0, torch.device("cpu"))
    images = torch.randn(2, 3, 8, 8)
    before = block.pass_through(images)
    images[:, :, :2, :2] = 0  # only the first of 3 x 3 patches, two pixels apart, has this corner
    after = block.pass_through(images)
    assert (before != after).flatten(2).any(2)[0].tolist() == [True] + [False] * 8
