"""Compute dtype and memory layout: activations have those asked for, and their arrival decides nothing."""

import pytest
import torch
from torch import Tensor, nn

from greedypipe.pipeline.networks.custom import OwnNetwork
from greedypipe.pipeline.partition import PartitionConfig
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.sections import TrainingConfig
from tests.unit.tiny import DIGITS, RGB, ROWS, VGG, batch, differing, flat, head, make_block, train


def test_bf16_computes_and_hands_on_bf16_and_keeps_everything_else_in_fp32() -> None:
    block = make_block(1, 3, model=VGG, training=TrainingConfig(precision="bf16"))
    activation, loss = train(block, range(1))
    assert activation.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    handed_on, logits = block.predict(activation.new_zeros(ROWS, *block.shapes.input))
    assert (handed_on.dtype, logits.dtype) == (torch.bfloat16, torch.float32)
    kept = [leaf for leaf in flat(block.state_dict()).values() if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    assert {parameter.grad.dtype for layer in block.layers for parameter in layer.module.parameters()} == {torch.float32}


def test_bf16_is_fp32_up_to_rounding() -> None:
    exact, rounded = (
        train(make_block(1, 3, model=VGG, training=TrainingConfig(precision=precision)), range(1))
        for precision in ("fp32", "bf16")
    )
    for left, right in zip(exact, rounded, strict=True):
        assert torch.allclose(left, right.float(), rtol=0.05, atol=0.1)
        assert not torch.equal(left, right.float())


@pytest.mark.parametrize(("channels_last", "layout"), [(True, torch.channels_last), (False, torch.contiguous_format)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_and_weights_have_the_layout_asked_for(
    channels_last: bool, layout: torch.memory_format, precision: str
) -> None:
    training = TrainingConfig(channels_last=channels_last, precision=precision)
    block = make_block(model=VGG, training=training, head=head("cnn"))
    activation, _ = train(block, range(1))
    handed_on, _ = block.predict(batch(block)[0])
    weights = [tensor for tensor in {**block.layer_state(), **block.method.state_dict()}.values() if tensor.dim() == 4]
    assert len(weights) > 2
    assert all(tensor.is_contiguous(memory_format=layout) for tensor in (activation, handed_on, *weights))


def reshaping(input_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Its first layer keeps the dtype of the image and gives NCHW."""
    reshape = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 4, 4)))
    return nn.Sequential(reshape, nn.Conv2d(4, 8, 3), nn.Sequential(nn.Flatten(), nn.Linear(32, num_classes)))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_have_dtype_and_layout_whatever_the_layers_give(precision: str, channels_last: bool) -> None:
    training = TrainingConfig(channels_last=channels_last, precision=precision)
    cut = PartitionConfig(blocks=2, boundaries=("1",))
    block = make_block(model=OwnNetwork(name=f"{__name__}:reshaping"), partition=cut, training=training)
    x, given = batch(block)
    for activation in (block.forward(x, given), block.pass_through(x)):
        assert activation.dtype == block.precision.activation_dtype
        assert activation.is_contiguous(memory_format=block.precision.memory_format(4))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    ("index", "images"), [(0, RGB), (0, DIGITS), (5, DIGITS)], ids=["rgb", "one channel", "one position"]
)
def test_the_layout_in_which_the_input_arrives_changes_no_bit(
    index: int, images: tuple[int, int, int], channels_last: bool
) -> None:
    states = []
    for layout in (torch.contiguous_format, torch.channels_last):
        block = make_block(index, 7, images, model=VGG, training=TrainingConfig(channels_last=channels_last))
        x, given = batch(block)
        activation = block.forward(torch.empty_like(x, memory_format=layout).copy_(x), given).clone()
        block.learn()
        states.append((activation, block.state_dict()))
    assert not differing(*states)


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 1, 8, 8), (4, 8, 1, 1), (1, 8, 4, 4), (4, 8), (4, 5, 8)], ids=str)
@pytest.mark.parametrize("channels_last", [True, False])
def test_canonical_strides_follow_from_the_shape_alone(shape: tuple[int, ...], channels_last: bool) -> None:
    """Also where a dimension of size 1 makes both layouts the same memory: kernels are chosen by strides."""
    precision = Precision("fp32", channels_last)
    layouts = (torch.contiguous_format, torch.channels_last) if len(shape) == 4 else (torch.contiguous_format,)
    expected = torch.empty(shape, memory_format=precision.memory_format(len(shape))).stride()
    for layout in layouts:
        x = torch.randn(shape).contiguous(memory_format=layout)
        arrived = torch.empty(shape, memory_format=layout).copy_(x)
        assert precision.canonical(arrived).stride() == expected
        assert torch.equal(precision.canonical(arrived), x)


def test_canonical_does_not_copy_what_has_the_layout_already() -> None:
    x = torch.empty(4, 3, 8, 8, memory_format=torch.channels_last)
    assert Precision("fp32", True).canonical(x).data_ptr() == x.data_ptr()
    assert Precision("fp32", False).canonical(x).data_ptr() != x.data_ptr()
