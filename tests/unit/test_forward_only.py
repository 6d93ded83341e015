"""Methods that need nothing back: against naive loops, and where two of them must be one, bit for bit."""

import importlib
import math
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
from greedypipe.pipeline.batch import IMAGE, LABELS, Batch
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.losses import supervised_contrast
from greedypipe.pipeline.method import LocalLoss, Sample
from greedypipe.pipeline.methods import METHODS, build_method
from greedypipe.pipeline.networks.layer import Layer
from greedypipe.pipeline.networks.vgg import VggConfig
from greedypipe.pipeline.optimizer import SgdConfig
from greedypipe.pipeline.sections import TrainingConfig
from greedypipe.pipeline.task import Classification
from greedypipe.pipeline.trunk import tapped
from tests.unit.test_feedback_oracles import data
from tests.unit.tiny import DIGITS, RESNET, differing, head, make_block, make_blocks, make_site, method

MAP = (6, 4, 4)
DROPOUT = VggConfig(width=0.1, dropout=0.3)


def trained(name: str, heads: str = "mlp_sr", **keys: Any) -> dict[str, Tensor]:
    """Layers and heads of four blocks with dropout, after a few batches."""
    made = make_blocks(
        4,
        model=keys.pop("model", DROPOUT),
        method=method(name, **keys),
        head=head(heads),
        optimizer=SgdConfig(lr=0.05),
        training=TrainingConfig(epochs=3),
    )
    reference.train(made, data())
    of_heads = {f"head{one.index}.{key}": value for one in made for key, value in one.method.head.state_dict().items()}
    return {name: value for block in made for name, value in block.layer_state().items()} | of_heads


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert not [name for name in left if not torch.equal(left[name], right[name])]


def built(name: str, shape: tuple[int, ...] = MAP, index: int = 0, num_blocks: int = 4, **keys: Any) -> Any:
    return build_method(method(name, **keys), make_site(shape, index=index, num_blocks=num_blocks))


def sample(shape: tuple[int, ...] = MAP, rows: int = 7, **own: Any) -> Sample:
    h = torch.randn(rows, *shape, requires_grad=True)
    return Sample(torch.arange(rows) % 3, {IMAGE: torch.randn(rows, *DIGITS)}, input=h, output=h, **own)


# Where two methods are one


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("cross_entropy_supcon", {"weight": 0}),
        ("coarse_labels", {"groups": (10, 10, 10)}),
        ("infopro_softmax", {"ixx": (0, 0), "ixy": (1, 1)}),
    ],
)
def test_without_what_they_add_they_are_decoupled_greedy_learning(name: str, keys: dict[str, Any]) -> None:
    assert_same(trained(name, **keys), trained("cross_entropy"))


@pytest.mark.parametrize("keys", [{"weight": 0}, {"weight": 0, "early": 0}])
def test_trgl_without_weight_is_decoupled_greedy_learning(keys: dict[str, float]) -> None:
    assert_same(trained("trgl", model=RESNET, **keys), trained("cross_entropy", model=RESNET))


def test_trgl_whose_weight_does_not_move_is_trgl() -> None:
    moved, still, plain = (
        trained(name, model=RESNET, weight=0.3, **keys)
        for name, keys in (("trgl_uzawa", {"every": 2}), ("trgl_uzawa", {"every": 2, "rate": 0}), ("trgl", {}))
    )
    assert_same(still, plain)
    assert any(not torch.equal(moved[name], plain[name]) for name in plain)


def test_the_multiplier_grows_by_the_loss_every_so_many_batches() -> None:
    one, given = built("trgl_uzawa", weight=0.3, rate=0.5, every=3), sample(inner=(torch.ones(2, 2),))
    cross_entropy = functional.cross_entropy(one.head(given.h), given.labels).item()
    multiplier = 1.0
    for number in range(7):
        expected = cross_entropy + 0.3 * 2 / multiplier
        assert one.loss(replace(given, turn=number)).item() == pytest.approx(expected, rel=1e-5)
        multiplier += 0.5 * cross_entropy if number % 3 == 2 else 0
        assert one.multiplier.item() == pytest.approx(multiplier, rel=1e-5)


def test_residuals_are_looked_at_without_changing_what_layers_compute() -> None:
    watched, plain = (trained(name, model=RESNET, **keys) for name, keys in (("trgl", {"early": 0}), ("cross_entropy", {})))
    own = [name for name in plain if name.startswith(("layer1.0", "conv1"))]
    assert own and all(torch.equal(watched[name], plain[name]) for name in own)
    assert not torch.equal(watched["layer3.0.conv1.weight"], plain["layer3.0.conv1.weight"])


@pytest.mark.parametrize("name", ["pred", "predsim"])
def test_prediction_is_cross_entropy_through_the_linear_head(name: str) -> None:
    expected = trained("cross_entropy", "linear")
    assert_same(trained(name, **({} if name == "pred" else {"heads": "linear", "beta": 0})), expected)


def test_similarity_alone_is_predsim_without_prediction() -> None:
    alone, mixed = trained("sim"), trained("predsim", beta=1)
    assert_same(*({name: value for name, value in one.items() if "head" not in name} for one in (alone, mixed)))


RESNET_IMAGES = (3, 16, 16)


@pytest.mark.parametrize("name", ["reconstruction", "reconstruction_only"])
def test_before_the_pool_is_behind_it_where_there_is_none(name: str) -> None:
    plain, before = (make_block(1, 3, model=DROPOUT, method=method(name, tap=tap)) for tap in ("post_pool", "pre_pool"))
    assert [layer.name for layer in plain.layers][-1].startswith("pool")
    none = [make_block(1, 4, RESNET_IMAGES, model=RESNET, method=method(name, tap=tap)) for tap in ("post_pool", "pre_pool")]
    assert not none[1].method.taps() and before.method.taps() and not plain.method.taps()
    assert not differing(none[0].method.state_dict(), none[1].method.state_dict())


# Formulas


def naive_contrast(rows: Tensor, classes: list[int], temperature: float) -> float:
    """One pair of rows at a time, in Python's floats."""
    vectors = [[value / math.sqrt(sum(one * one for one in row)) for value in row] for row in rows.tolist()]

    def likeness(i: int, j: int) -> float:
        return math.exp(sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True)) / temperature)

    losses = []
    for i in range(len(vectors)):
        others = [j for j in range(len(vectors)) if j != i]
        friends = [j for j in others if classes[j] == classes[i]]
        whole = sum(likeness(i, j) for j in others)
        if friends:
            losses.append(sum(-math.log(likeness(i, j) / whole) for j in friends) / len(friends))
    return sum(losses) / max(1, len(losses))


@pytest.mark.parametrize("classes", [[0, 1, 0, 2, 1, 0], [0, 1, 2, 3, 4, 5], [7] * 6, [0, 0, 1, 1, 2, 2]], ids=str)
@pytest.mark.parametrize("temperature", [0.07, 0.1, 0.5])
def test_contrast_equals_a_computation_pair_by_pair(classes: list[int], temperature: float) -> None:
    rows = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    found = supervised_contrast(rows, torch.tensor(classes), temperature).item()
    assert found == pytest.approx(naive_contrast(rows.double(), classes, temperature), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_contrast_of_rows_without_another_of_their_class_is_0_and_pulls_nowhere(rows: int) -> None:
    vectors = torch.randn(rows, 3, requires_grad=True)
    loss = supervised_contrast(vectors, torch.arange(rows), 0.1)
    loss.backward()
    assert loss.item() == 0 and vectors.grad is not None and not vectors.grad.any()


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_contrast_is_added_to_cross_entropy(weight: float) -> None:
    one, given = built("cross_entropy_supcon", weight=weight, temperature=0.2), sample()
    contrast = naive_contrast(one.projection(given.h).double(), given.labels.tolist(), 0.2)
    expected = functional.cross_entropy(one.head(given.h), given.labels).item() + weight * contrast
    assert one.loss(given).item() == pytest.approx(expected, rel=1e-4)


def test_trgl_adds_the_mean_squares_of_all_residuals() -> None:
    residuals = [torch.randn(3, 2, 2), torch.randn(4, 5)]
    for index, factor in enumerate((2, 2, 1)):
        one, given = built("trgl", index=index, weight=0.3), sample(inner=tuple(residuals))
        squares = sum(sum(value * value for value in one.flatten().tolist()) / one.numel() for one in residuals)
        expected = functional.cross_entropy(one.head(given.h), given.labels).item() + 0.3 * factor * squares
        assert one.loss(given).item() == pytest.approx(expected, rel=1e-5)


def test_the_residuals_of_a_block_are_what_its_layers_add_to_their_input() -> None:
    block = make_block(1, 4, RESNET_IMAGES, model=RESNET, method=method("trgl"))
    x = block.precision.canonical(torch.randn(2, *block.shapes.input))
    block.forward(x, Batch(0, torch.zeros(2, dtype=torch.int64)))
    assert block._fresh is not None
    (first, *others), layer = block._fresh.inner, block.layers[0].module
    assert len(others) == len(block.layers) - 1
    assert torch.equal(first, layer.bn2(layer.conv2(torch.relu(layer.bn1(layer.conv1(x))))))


def test_a_residual_that_its_layer_adds_up_in_place_is_seen_before_that() -> None:
    one: Any = importlib.import_module("torchvision.models.resnet").BasicBlock(4, 4)
    x = torch.randn(3, 4, 5, 5)
    with tapped([one.bn2]) as found:
        out = one(x)
    assert torch.equal(torch.relu(found[0] + x), out)


@pytest.mark.parametrize(("index", "shifts"), [(0, 5), (1, 8), (2, 12)])
def test_images_are_rolled_as_in_the_thesis(index: int, shifts: int) -> None:
    """numpy's linspace of whole numbers from 5 to 16 over all blocks, the last one included."""
    one, given = built("reconstruction_only", index=index, shift=(5, 16)), sample()
    image = given.extras[IMAGE]
    rolled = torch.stack(
        [torch.stack([image[..., (i - shifts) % 8, (j - shifts) % 8] for j in range(8)], -1) for i in range(8)], -2
    )
    expected = (one.decoder(given.h) - rolled).abs().mean() + functional.cross_entropy(one.head(given.h), given.labels)
    assert one.loss(given).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_shift_of_one_block_is_no_shift_of_the_next() -> None:
    assert [built("reconstruction", index=index, shift=(0, 3))._shift for index in range(3)] == [0, 1, 2]


def test_before_the_pool_the_decoder_sees_the_map_that_the_head_sees_pooled() -> None:
    block = make_block(1, 3, model=VggConfig(width=0.1), method=method("reconstruction", tap="pre_pool", shift=(1, 1)))
    x = torch.randn(5, *block.shapes.input)
    extras = {IMAGE: torch.randn(5, *DIGITS)}
    h = block.forward(x, Batch(0, torch.arange(5), extras)).clone()
    assert block._fresh is not None
    (inner,) = block._fresh.inner
    assert torch.equal(functional.max_pool2d(inner, 2), h)
    one: Any = block.method
    rolled = extras[IMAGE].roll((1, 1), (2, 3))
    expected = 0.5 * (one.decoder(inner) - rolled).abs().mean() + 0.5 * functional.cross_entropy(
        one.head(h), torch.arange(5)
    )
    assert block.learn().loss == pytest.approx(expected.item(), rel=1e-5)


def test_infopro_goes_from_the_image_to_the_labels() -> None:
    weights = [
        (one._image_weight, one._label_weight) for one in (built("infopro_softmax", index=index) for index in range(3))
    ]
    assert weights == [(1, 0), (0.5, 0.5), (0, 1)]
    assert built("infopro_softmax", num_blocks=2, ixx=(5, 0), ixy=(0.5, 0))._image_weight == 5
    assert built("infopro_softmax", index=2).decoder is None and built("infopro_contrast", index=0).projection is None


def test_infopro_compares_pixels_between_0_and_1() -> None:
    site = make_site(MAP, index=1, num_blocks=4)
    site.task.mean, site.task.std = (0.4,), (0.3,)
    one, given = build_method(method("infopro_softmax"), site), sample()
    decoded = torch.sigmoid(one.decoder(given.h)).flatten().tolist()  # type: ignore[operator]
    pixels = [min(1.0, max(0.0, value * 0.3 + 0.4)) for value in given.extras[IMAGE].flatten().tolist()]
    image = -sum(p * math.log(q) + (1 - p) * math.log(1 - q) for p, q in zip(pixels, decoded, strict=True)) / len(pixels)
    expected = 0.5 * image + 0.5 * functional.cross_entropy(one.head(given.h), given.labels).item()
    assert one.loss(given).item() == pytest.approx(expected, rel=1e-4)  # type: ignore[operator]


def test_a_group_is_learned_by_a_head_of_its_own_and_all_classes_by_a_probe() -> None:
    one = built("coarse_labels", groups=(((0, 1, 8, 9), (2, 3, 4, 5, 6, 7)), 3, 10))
    assert one.group_of.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    given = sample()
    groups = torch.tensor([0 if label in (0, 1, 8, 9) else 1 for label in given.labels.tolist()])
    own = functional.cross_entropy(one.group_head(given.h), groups)
    assert one.loss(given) == own + functional.cross_entropy(one.head(given.h), given.labels)
    (expected,), (found,) = (torch.autograd.grad(loss, given.h, retain_graph=True) for loss in (own, one.loss(given)))
    assert torch.equal(found, expected)


def test_groups_double_until_every_class_is_one() -> None:
    counts = [max(built("coarse_labels", index=index, num_blocks=6).group_of.tolist()) + 1 for index in range(5)]
    assert counts == [2, 4, 8, 10, 10]


OF_SIGNALS = [
    name
    for name, one in METHODS.items()
    if issubclass(one, LocalLoss) and one.needs <= {LABELS, IMAGE} and name != "greedy_infomax"
]
"""Those that need no pretext task and no patches, which signals do not have."""


@pytest.mark.parametrize("name", OF_SIGNALS)
def test_signals_are_learned_from_as_maps_are(name: str) -> None:
    made_by = Layer("one", "one", nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU()))
    one: Any = build_method(method(name), make_site((6, 4), num_blocks=4, index=1, layers=(made_by,)))
    given = sample((6, 4))
    one.loss(given).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in one.parameters())


# Label smoothing, and the lower bounds


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_labels_give_every_class_a_share(smoothing: float) -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    task = Classification((1, 8, 8), 3, label_smoothing=smoothing)
    expected = [
        -sum(
            ((1 - smoothing) * (label == number) + smoothing / 3) * row.log_softmax(0)[number].item() for number in range(3)
        )
        for row, label in zip(logits, labels.tolist(), strict=True)
    ]
    assert task.loss(logits, labels, "none").tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(task.surprise(logits, labels), functional.cross_entropy(logits, labels))
    assert task.with_outputs(2).outputs == 2 and task.outputs == 3


def test_the_classifier_alone_learns_where_no_block_is_to() -> None:
    for last_block in (True, False):
        made: list[Block] = make_blocks(3, method=method("none", last_block=last_block))
        before = [{name: value.clone() for name, value in block.layer_state().items()} for block in made]
        reference.train(made, data())
        changed = {
            name
            for block, state in zip(made, before, strict=True)
            for name, value in block.layer_state().items()
            if name.endswith("weight") and not torch.equal(value, state[name])
        }
        assert ("fc4.linear.weight" in changed) is last_block
        assert "classifier.weight" in changed and "fc1.linear.weight" not in changed


# What cannot be


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["method.name=trgl"], "method.name: got trgl with a network without shortcuts, allowed: residual networks"),
        (["method.name=coarse_labels", "method.groups=[2,4]"], "method.groups: got 2 entries, allowed: 3, one for each"),
        (["method.name=coarse_labels", "method.groups=[2,3,10]"], "block 1 that are no parts of those of block 0"),
        (["method.name=coarse_labels", "method.groups=[2,4,11]"], "method.groups: got 11 groups, allowed: 2 to 10"),
        (["method.name=coarse_labels", "method.groups=[[[0,1],[2,3]],4,10]"], "allowed: every class of 0 to 9 once"),
        (["method.name=infopro_softmax", "method.ixx=[0,1]"], "method.ixx: got 0 for block 0, allowed: above 0"),
        (
            ["method.name=pred", "head.name=linear"],
            "head.name: got linear, which has no effect with method.name=pred: it has a head of its own",
        ),
        (
            ["method.name=reconstruction", "method.tap=pre_pool", "training.compile=inductor"],
            "training.compile: got inductor with method.name=reconstruction, allowed: none: it looks at activations inside",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_start(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_plan(load_config(None, ["data.name=digits", "model.width=0.1", *overrides]), 1)
    (found,) = str(refused.value).splitlines()
    assert line in found


@pytest.mark.parametrize("name", ["sim", "predsim", "supcon", "cross_entropy_supcon", "infopro_contrast"])
def test_losses_that_compare_samples_are_not_shared_by_replicas(name: str) -> None:
    tiny = ["data.name=digits", "model.width=0.1", "partition.blocks=3", f"method.name={name}"]
    with pytest.raises(ConfigError, match="its loss compares the samples of a batch"):
        make_plan(load_config(None, [*tiny, "placement.replicas=[1,2,1]"]), 4)
    make_plan(load_config(None, [*tiny, "placement.replicas=[1,1,2]"]), 4)


def test_overlap_is_shared_by_replicas_where_its_own_loss_is() -> None:
    tiny = ["data.name=digits", "model.width=0.1", "partition.blocks=3", "method.name=overlap", "placement.replicas=[1,2,1]"]
    make_plan(load_config(None, tiny), 4)
    with pytest.raises(ConfigError, match="its loss compares the samples of a batch"):
        make_plan(load_config(None, [*tiny, "method.local.name=supcon"]), 4)
