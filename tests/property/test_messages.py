"""Packing and unpacking: whatever fits a layout arrives with the same bits, shapes, dtypes and strides."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from greedypipe.pipeline.batch import TensorSpec
from greedypipe.workers.links.messages import ALIGNMENT_BYTES, HEADER_BYTES, Kind, Message, MessageLayout
from greedypipe.workers.links.slots import Slot

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.float8_e4m3fn,
]
INT64 = st.integers(-(2**63), 2**63 - 1)


def specs(names: str) -> st.SearchStrategy[tuple[TensorSpec, ...]]:
    shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
    parts = st.tuples(shapes, st.sampled_from(DTYPES), st.booleans())
    return st.lists(parts, max_size=len(names)).map(
        lambda chosen: tuple(TensorSpec(name, *part) for name, part in zip(names, chosen, strict=False))
    )


@st.composite
def layouts(draw: st.DrawFn) -> MessageLayout:
    return MessageLayout(
        draw(st.integers(1, 5)), {Kind.TRAIN: draw(specs("abc")), Kind.EVALUATE: draw(specs("xy")), Kind.EVALUATED: ()}
    )


def random_tensor(spec: TensorSpec, rows: int, spread: bool, generator: torch.Generator) -> Tensor:
    """Any bits at all; `spread` leaves gaps between the elements, as slices of a larger tensor have."""
    shape = (rows, *spec.shape, 2 if spread else 1)
    high = 2 if spec.dtype == torch.bool else 256
    memory = torch.randint(0, high, (math.prod(shape) * spec.dtype.itemsize,), dtype=torch.uint8, generator=generator)
    return memory.view(spec.dtype).view(shape)[..., 0]


def bits(tensor: Tensor) -> list[int]:
    return tensor.clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8).tolist()


@settings(max_examples=120, deadline=None)
@given(
    layout=layouts(),
    kind=st.sampled_from(Kind),
    rows=st.integers(1, 5),
    batch_id=INT64,
    step=INT64,
    spread=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_a_message_arrives_as_it_was_sent(
    layout: MessageLayout, kind: Kind, rows: int, batch_id: int, step: int, spread: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = min(rows, layout.max_rows)
    wanted = layout.specs.get(kind, ())
    message = Message(kind, batch_id, step, {spec.name: random_tensor(spec, rows, spread, generator) for spec in wanted})
    slot = torch.randint(0, 256, (layout.slot_bytes,), dtype=torch.uint8, generator=generator)
    layout.check(message)
    used = Slot(layout, slot).pack(message)
    size = len(used)
    assert size == layout.message_bytes(kind, rows) <= layout.slot_bytes and size % ALIGNMENT_BYTES == 0

    arrived = Slot(layout, used.clone()).unpack()
    assert (arrived.kind, arrived.batch_id, arrived.step) == (kind, batch_id, step)
    assert list(arrived.tensors) == [spec.name for spec in wanted]
    assert arrived.rows == (rows if wanted else 0)
    for spec in wanted:
        got, sent = arrived.tensors[spec.name], message.tensors[spec.name]
        assert (got.shape, got.dtype) == (sent.shape, sent.dtype)
        assert bits(got) == bits(sent)
        as_pixels = spec.channels_last and len(spec.shape) == 3
        memory_format = torch.channels_last if as_pixels else torch.contiguous_format
        assert got.is_contiguous(memory_format=memory_format)


@settings(max_examples=60, deadline=None)
@given(layout=layouts(), other=layouts())
def test_layouts_have_the_same_code_exactly_when_they_are_equal(layout: MessageLayout, other: MessageLayout) -> None:
    twin = MessageLayout(layout.max_rows, dict(reversed(layout.specs.items())))
    assert twin.code == layout.code
    same = (layout.max_rows, dict(layout.specs)) == (other.max_rows, dict(other.specs))
    assert (layout.code == other.code) == same


@settings(max_examples=60, deadline=None)
@given(layout=layouts(), kind=st.sampled_from([Kind.TRAIN, Kind.EVALUATE]), rows=st.integers(1, 5))
def test_tensors_of_a_message_lie_apart_and_aligned_in_its_slot(layout: MessageLayout, kind: Kind, rows: int) -> None:
    rows = min(rows, layout.max_rows)
    slot = torch.zeros(layout.slot_bytes, dtype=torch.uint8)
    empty = {spec.name: torch.zeros(rows, *spec.shape, dtype=spec.dtype) for spec in layout.specs[kind]}
    Slot(layout, slot).pack(Message(kind, 0, 0, empty))
    end = slot.data_ptr() + HEADER_BYTES
    for tensor in Slot(layout, slot).unpack().tensors.values():
        assert tensor.data_ptr() >= end and (tensor.data_ptr() - slot.data_ptr()) % ALIGNMENT_BYTES == 0
        end = tensor.data_ptr() + tensor.numel() * tensor.itemsize
    assert end <= slot.data_ptr() + layout.slot_bytes
