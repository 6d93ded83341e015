"""Encodings of tensors in slots: how many bytes they take, and how far what arrives is from what was sent."""

import pytest
import torch
from torch import Tensor

from greedypipe.pipeline.batch import TensorSpec
from greedypipe.workers.links.encoding import ENCODINGS
from greedypipe.workers.links.messages import Kind, Message, MessageLayout
from greedypipe.workers.links.slots import Slot

CPU = torch.device("cpu")
SHAPES = {"map": (5, 4, 3), "tokens": (6, 5), "vector": (5,), "one_channel": (1, 3, 3)}
ROWS = 7


def layout_of(encoding: str, shape: tuple[int, ...] = (5, 4, 3), dtype: torch.dtype = torch.float32) -> MessageLayout:
    activation = TensorSpec("activation", shape, dtype, channels_last=True)
    specs = {Kind.TRAIN: (TensorSpec("labels", (), torch.int64), activation)}
    return MessageLayout(ROWS, specs, {"activation": encoding})


def arrive(x: Tensor, layout: MessageLayout) -> Tensor:
    slot = Slot(layout, torch.zeros(layout.slot_bytes, dtype=torch.uint8))
    message = Message(Kind.TRAIN, 0, 0, {"labels": torch.arange(len(x)), "activation": x})
    layout.check(message)
    slot.pack(message)
    arrived = slot.unpack().to(CPU).tensors["activation"]
    slot.memory.zero_()  # what was decoded must not lie in the slot
    return arrived


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("encoding", ["bf16", "int8"])
@pytest.mark.parametrize("rows", [3, 0], ids=["rows", "empty"])
def test_what_arrives_has_the_shape_dtype_and_format_that_were_sent(
    encoding: str, shape: tuple[int, ...], dtype: torch.dtype, rows: int
) -> None:
    x = torch.randn(rows, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    arrived = arrive(x, layout_of(encoding, shape, dtype))
    assert (arrived.shape, arrived.dtype) == (x.shape, dtype)
    if len(shape) == 3:
        assert arrived.is_contiguous(memory_format=torch.channels_last)


def test_bf16_rounds_to_the_nearest_bfloat16() -> None:
    x = torch.randn(ROWS, 5, 4, 3)
    assert torch.equal(arrive(x, layout_of("bf16")), x.bfloat16().float())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_int8_is_off_by_at_most_half_a_step_of_its_channel(shape: tuple[int, ...]) -> None:
    x = torch.randn(ROWS, *shape) * 10 ** torch.randn(shape[-1])  # another range at every last index
    channel = 1 if len(shape) == 3 else len(shape)
    others = [dim for dim in range(x.dim()) if dim != channel]
    step = (x.amax(others, keepdim=True) - x.amin(others, keepdim=True)) / 255
    error = (arrive(x, layout_of("int8", shape)) - x).abs()
    assert (error <= 0.501 * step + 1e-6).all()
    assert error.max() > 0


def test_int8_keeps_the_zeros_behind_a_relu() -> None:
    x = torch.randn(ROWS, 5, 4, 3).relu()
    assert torch.equal(arrive(x, layout_of("int8")) == 0, x == 0) or (arrive(x, layout_of("int8"))[x == 0] == 0).all()


def test_int8_keeps_a_constant_channel_and_an_empty_range() -> None:
    x = torch.full((ROWS, 5, 4, 3), 2.5)
    x[:, 0] = 0
    assert torch.equal(arrive(x, layout_of("int8")), x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_int8_shows_a_value_that_is_not_finite(bad: float) -> None:
    x = torch.randn(ROWS, 5, 4, 3)
    x[2, 3, 1, 1] = bad
    arrived = arrive(x, layout_of("int8"))
    assert arrived[:, 3].isnan().any() and arrived[:, :3].isfinite().all()


def test_fewer_bits_take_fewer_bytes() -> None:
    spec = layout_of("same").specs[Kind.TRAIN][1]
    sizes = {name: encoding.size_bytes(spec, ROWS) for name, encoding in ENCODINGS.items()}
    assert sizes == {"same": 60 * ROWS * 4, "bf16": 60 * ROWS * 2, "int8": 60 * ROWS + 2 * 5 * 4}


def test_layouts_that_differ_in_the_encoding_have_other_codes() -> None:
    assert len({layout_of(encoding).code for encoding in ENCODINGS}) == len(ENCODINGS)
