"""Local losses against independent computations, and the decoder of those that rebuild the image."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from greedypipe.pipeline.batch import IMAGE as IMAGE_NAME
from greedypipe.pipeline.heads.decoder import MapDecoder, build_decoder
from greedypipe.pipeline.method import LocalLoss, Sample
from greedypipe.pipeline.methods import METHOD_FAMILY, METHODS, build_method
from greedypipe.pipeline.methods.predsim import PredSim
from greedypipe.pipeline.methods.reconstruction import Reconstruction
from greedypipe.pipeline.methods.reconstruction_only import ReconstructionOnly
from tests.unit.tiny import make_site, method
from tests.wanted import WANTED

NAMES = tuple(name for name, one in METHODS.items() if issubclass(one, LocalLoss) and (name not in WANTED or "trgl" in name))
IMAGE = (1, 8, 8)
MAP = (6, 4, 4)
CLASSES = 5


def build(name: str, shape: tuple[int, ...] = MAP, images: tuple[int, int, int] = IMAGE, **keys: float) -> LocalLoss:
    built = build_method(method(name, **keys), make_site(shape, CLASSES, images))
    assert isinstance(built, LocalLoss)
    return built


def loss_of(loss: LocalLoss, activation: Tensor, labels: Tensor, image: Tensor | None = None) -> Tensor:
    extras = {} if image is None else {IMAGE_NAME: image}
    return loss(Sample(labels, extras, input=activation, output=activation))


def batch(shape: tuple[int, ...] = MAP, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Activation with a place for its gradient, labels of which some are equal, and image."""
    return torch.randn(rows, *shape, requires_grad=True), torch.arange(rows) % 4, torch.randn(rows, *IMAGE)


def gradient(loss: LocalLoss, activation: Tensor, labels: Tensor, image: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(loss_of(loss, activation, labels, image), activation)
    return result


def naive_cosine(a: list[float], b: list[float]) -> float:
    """Cosine similarity of two rows after the mean of each has been taken from it."""
    a = [value - sum(a) / len(a) for value in a]
    b = [value - sum(b) / len(b) for value in b]
    dot = sum(left * right for left, right in zip(a, b, strict=True))
    return dot / math.sqrt(sum(value * value for value in a)) / math.sqrt(sum(value * value for value in b))


def naive_std(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def naive_similarity_loss(projected: Tensor, labels: Tensor) -> float:
    """Similarity matching one pair of samples at a time, in Python's floats."""
    if projected.dim() == 4:
        rows = [[naive_std(channel.flatten().tolist()) for channel in sample] for sample in projected]
    else:
        rows = [sample.flatten().tolist() for sample in projected]
    one_hot = [[float(index == label) for index in range(CLASSES)] for label in labels.tolist()]
    squares = [
        (naive_cosine(rows[i], rows[j]) - naive_cosine(one_hot[i], one_hot[j])) ** 2
        for i in range(len(rows))
        for j in range(len(rows))
    ]
    return sum(squares) / len(squares)


def test_cross_entropy_is_torchs_through_the_head() -> None:
    loss = build("cross_entropy")
    activation, labels, _ = batch()
    assert torch.equal(loss_of(loss, activation, labels), functional.cross_entropy(loss.head(activation), labels))


@pytest.mark.parametrize("shape", [MAP, (6, 2, 2), (12,), (3, 12)], ids=str)
def test_similarity_matching_equals_a_computation_pair_by_pair(shape: tuple[int, ...]) -> None:
    loss = build("predsim", shape, beta=1.0)
    assert isinstance(loss, PredSim)
    activation, labels, _ = batch(shape)
    expected = naive_similarity_loss(loss.projection(activation).detach(), labels)
    assert loss_of(loss, activation, labels).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.99, 1.0])
def test_predsim_mixes_similarity_matching_and_cross_entropy_by_beta(beta: float) -> None:
    loss = build("predsim", beta=beta)
    assert isinstance(loss, PredSim)
    activation, labels, _ = batch()
    similarity = naive_similarity_loss(loss.projection(activation).detach(), labels)
    cross_entropy = functional.cross_entropy(loss.head(activation), labels).item()
    expected = beta * similarity + (1 - beta) * cross_entropy
    assert loss_of(loss, activation, labels).item() == pytest.approx(expected, rel=1e-4)


def test_similarity_matching_projects_by_a_3x3_convolution_or_a_linear_map_without_bias() -> None:
    of_map, of_vector = build("predsim", MAP), build("predsim", (12,))
    assert isinstance(of_map, PredSim) and isinstance(of_vector, PredSim)
    assert [tuple(parameter.shape) for parameter in of_map.projection.parameters()] == [(6, 6, 3, 3)]
    assert [tuple(parameter.shape) for parameter in of_vector.projection.parameters()] == [(12, 12)]
    assert of_map.projection(torch.zeros(1, *MAP)).shape == (1, *MAP)


def test_similarity_matching_is_least_where_equal_labels_have_equal_activations() -> None:
    loss = build("predsim", (CLASSES,), beta=1.0)
    assert isinstance(loss, PredSim)
    nn.init.eye_(loss.projection.get_parameter("weight"))
    labels = torch.arange(6) % CLASSES
    one_hot = functional.one_hot(labels, CLASSES).float()
    assert loss_of(loss, one_hot, labels).item() == pytest.approx(0.0, abs=1e-10)
    assert loss_of(loss, one_hot.roll(1, 0), labels).item() > 0.1


@pytest.mark.filterwarnings("error")
def test_predsim_is_defined_on_maps_of_one_position() -> None:
    """vgg8b on 8 x 8 images ends in such maps. Over space they have no std."""
    loss = build("predsim", (6, 1, 1))
    activation, labels, image = batch((6, 1, 1))
    assert loss_of(loss, activation, labels).isfinite()
    assert gradient(loss, activation, labels, image).isfinite().all()


@pytest.mark.parametrize("shape", [MAP, (12,)], ids=str)
def test_predsim_has_a_finite_gradient_where_the_activation_is_dead(shape: tuple[int, ...]) -> None:
    loss = build("predsim", shape)
    activation, labels, image = torch.zeros(6, *shape, requires_grad=True), torch.arange(6) % 4, torch.randn(6, *IMAGE)
    assert gradient(loss, activation, labels, image).isfinite().all()


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_reconstruction_mixes_image_loss_and_cross_entropy_exactly(weight: float) -> None:
    loss = build("reconstruction", weight=weight)
    assert isinstance(loss, Reconstruction)
    activation, labels, image = batch()
    image_loss = (loss.decoder(activation) - image).abs().mean()
    cross_entropy = functional.cross_entropy(loss.head(activation), labels)
    assert torch.allclose(
        loss_of(loss, activation, labels, image), weight * image_loss + (1 - weight) * cross_entropy, atol=1e-7
    )


def test_reconstruction_only_gives_the_activation_the_gradient_of_the_image_loss_alone() -> None:
    loss = build("reconstruction_only")
    assert isinstance(loss, ReconstructionOnly)
    activation, labels, image = batch()
    (expected,) = torch.autograd.grad((loss.decoder(activation) - image).abs().mean(), activation)
    assert expected.any()
    assert torch.equal(gradient(loss, activation, labels, image), expected)
    assert torch.equal(gradient(loss, activation, (labels + 1) % CLASSES, image), expected)


@pytest.mark.parametrize("name", ["cross_entropy", "predsim", "reconstruction"])
def test_losses_with_labels_give_the_activation_a_gradient_from_them(name: str) -> None:
    loss = build(name)
    activation, labels, image = batch()
    with_others = gradient(loss, activation, (labels + 1) % CLASSES, image)
    assert not torch.allclose(gradient(loss, activation, labels, image), with_others)


@pytest.mark.parametrize("name", NAMES)
def test_the_head_of_every_loss_learns_from_the_labels(name: str) -> None:
    loss = build(name)
    activation, labels, image = batch()
    gradients = []
    for targets in (labels, (labels + 1) % CLASSES):
        loss.zero_grad()
        loss_of(loss, activation, targets, image).backward()
        gradients.append(torch.cat([torch.flatten(parameter.grad) for parameter in loss.head.parameters()]))
    assert not torch.allclose(*gradients)


@pytest.mark.parametrize("shape", [MAP, (12,), (3, 12)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_a_loss_is_trained(name: str, shape: tuple[int, ...]) -> None:
    loss = build(name, shape)
    loss_of(loss, *batch(shape)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in loss.parameters())


def test_losses_declare_whether_they_want_the_image() -> None:
    wanting = ["reconstruction", "reconstruction_only", "infopro_softmax", "infopro_contrast"]
    assert [name for name in NAMES if IMAGE_NAME in build(name).needs] == wanting


@pytest.mark.parametrize("name", ["reconstruction", "reconstruction_only"])
def test_a_loss_that_wants_the_image_does_not_do_without(name: str) -> None:
    activation, labels, _ = batch()
    with pytest.raises(KeyError, match="image"):
        loss_of(build(name), activation, labels)


def test_only_none_declares_that_it_trains_no_layers() -> None:
    assert [name for name in NAMES if not build(name).trains_layers] == ["none"]


@pytest.mark.parametrize("shape", [MAP, (12,), (3, 12)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_loss_is_an_fp32_scalar_also_of_bf16_activations(name: str, shape: tuple[int, ...]) -> None:
    loss = build(name, shape)
    activation, labels, image = batch(shape)
    exact = loss_of(loss, activation, labels, image)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = loss_of(loss, activation.detach().bfloat16(), labels, image)
    assert rounded.shape == ()
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.05)


def test_the_image_may_lie_in_any_memory_layout() -> None:
    loss = build("reconstruction_only", images=(3, 8, 8))
    activation, labels = torch.randn(6, *MAP, requires_grad=True), torch.arange(6) % 4
    image = torch.randn(6, 3, 8, 8)
    as_nhwc = image.contiguous(memory_format=torch.channels_last)
    assert torch.equal(gradient(loss, activation, labels, image), gradient(loss, activation, labels, as_nhwc))


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [("predsim", "beta", (0.2, 0.8)), ("reconstruction", "weight", (0.2, 0.8))],
)
def test_every_weight_changes_its_loss(name: str, key: str, values: tuple[float, float]) -> None:
    activation, labels, image = batch()
    results = []
    for value in values:
        torch.manual_seed(1)
        results.append(loss_of(build(name, **{key: value}), activation, labels, image).item())
    assert results[0] != pytest.approx(results[1], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("mse", "name", "mse"),
        ("predsim", "beta", 1.1),
        ("predsim", "beta", -0.1),
        ("reconstruction", "weight", 1.1),
        ("cross_entropy", "beta", 0.5),
        ("predsim", "temperature", 1.0),
    ],
)
def test_impossible_methods_are_refused(name: str, key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        METHOD_FAMILY.choose({"name": name, key: value})


IMAGES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
ACTIVATIONS = [(6, 8, 8), (6, 7, 7), (6, 4, 4), (6, 3, 3), (6, 2, 2), (6, 1, 1), (6,), (5, 6)]


@pytest.mark.parametrize("image_shape", IMAGES, ids=str)
@pytest.mark.parametrize("shape", ACTIVATIONS, ids=str)
def test_the_decoder_gives_an_image_whatever_the_activation(
    shape: tuple[int, ...], image_shape: tuple[int, int, int]
) -> None:
    decoder = build_decoder(make_site(shape, images=image_shape), shape)
    image = decoder(torch.randn(3, *shape))
    assert image.shape == (3, *image_shape)
    image.pow(2).sum().backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())


@pytest.mark.parametrize("image_shape", IMAGES, ids=str)
def test_the_decoder_of_a_map_of_the_images_size_is_a_1x1_convolution(image_shape: tuple[int, int, int]) -> None:
    channels, *size = image_shape
    decoder = build_decoder(make_site((16, *size), images=image_shape), (16, *size))
    assert [tuple(parameter.shape) for parameter in decoder.parameters()] == [(channels, 16, 1, 1), (channels,)]


def test_the_decoder_doubles_the_map_and_halves_the_channels_until_it_has_the_images_size() -> None:
    decoder = build_decoder(make_site((64, 4, 4), images=(3, 32, 32)), (64, 4, 4))
    assert isinstance(decoder, MapDecoder)
    assert [type(step) for step in decoder.upsampling] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * 3
    upsampling = [step for step in decoder.upsampling if isinstance(step, nn.ConvTranspose2d)]
    assert [(step.in_channels, step.out_channels) for step in upsampling] == [(64, 32), (32, 16), (16, 8)]
    assert all((step.kernel_size, step.stride) == ((2, 2), (2, 2)) for step in upsampling)
    assert decoder.upsampling(torch.randn(2, 64, 4, 4)).shape == (2, 8, 32, 32)
    assert (decoder.output.in_channels, decoder.output.out_channels, decoder.output.kernel_size) == (8, 3, (1, 1))


def test_the_decoder_of_few_channels_keeps_at_least_one() -> None:
    assert build_decoder(make_site((2, 1, 1)), (2, 1, 1))(torch.randn(3, 2, 1, 1)).shape == (3, 1, 8, 8)
