"""What travels over a link: messages, layouts, and what a layout refuses."""

import pytest
import torch
from torch import Tensor

from greedypipe.pipeline.batch import TensorSpec
from greedypipe.workers.links.messages import HEADER_BYTES, Kind, Message, MessageLayout
from greedypipe.workers.links.slots import Slot

LABELS = TensorSpec("labels", (), torch.int64)
ACTIVATION = TensorSpec("activation", (4, 3, 2), torch.float32, channels_last=True)
LOGITS = TensorSpec("ensemble", (10,), torch.float32)


@pytest.fixture
def layout() -> MessageLayout:
    return MessageLayout(5, {Kind.TRAIN: (LABELS, ACTIVATION), Kind.EVALUATE: (LABELS, ACTIVATION, LOGITS)})


def tensors(rows: int = 3) -> dict[str, Tensor]:
    return {"labels": torch.arange(rows), "activation": torch.rand(rows, 4, 3, 2)}


def memory_of(*layouts: MessageLayout) -> Tensor:
    return torch.zeros(max(layout.slot_bytes for layout in layouts), dtype=torch.uint8)


def slot_of(layout: MessageLayout) -> Slot:
    return Slot(layout, memory_of(layout))


def test_rows_are_those_of_the_tensors_and_zero_without() -> None:
    assert Message(Kind.TRAIN, 7, tensors=tensors(rows=3)).rows == 3
    assert Message(Kind.END, 7).rows == 0


def test_a_message_that_is_on_the_device_already_is_not_copied() -> None:
    message = Message(Kind.TRAIN, 7, 2, tensors())
    assert message.to(torch.device("cpu")) is message
    mark = Message(Kind.END, 7)
    assert mark.to(torch.device("meta")) is mark


def test_moving_a_message_moves_every_tensor_and_keeps_the_rest() -> None:
    moved = Message(Kind.TRAIN, 7, 2, tensors()).to(torch.device("meta"))
    assert (moved.kind, moved.batch_id, moved.step, moved.rows) == (Kind.TRAIN, 7, 2, 3)
    assert {tensor.device.type for tensor in moved.tensors.values()} == {"meta"}


def test_a_mark_is_a_header_and_nothing_else(layout: MessageLayout) -> None:
    slot = slot_of(layout)
    for kind in (Kind.EVALUATED, Kind.END):
        assert len(slot.pack(Message(kind, 12, 34))) == HEADER_BYTES == layout.message_bytes(kind, 0)
        arrived = slot.unpack()
        assert (arrived.kind, arrived.batch_id, arrived.step, dict(arrived.tensors)) == (kind, 12, 34, {})


def test_a_slot_holds_the_largest_kind_at_its_largest(layout: MessageLayout) -> None:
    # header 64; labels 5 * 8 -> 64; activation 5 * 96 = 480 -> 512; ensemble 5 * 40 = 200 -> 256
    assert layout.slot_bytes == layout.message_bytes(Kind.EVALUATE, 5) == 64 + 64 + 512 + 256


def test_fewer_rows_use_fewer_bytes(layout: MessageLayout) -> None:
    assert len(slot_of(layout).pack(Message(Kind.TRAIN, 0, tensors=tensors(rows=1)))) == 64 + 64 + 128


def test_unpacked_tensors_are_views_of_the_slot(layout: MessageLayout) -> None:
    slot = slot_of(layout)
    slot.pack(Message(Kind.TRAIN, 0, tensors=tensors()))
    arrived = slot.unpack()
    slot.memory[HEADER_BYTES:].zero_()
    assert all(not tensor.any() for tensor in arrived.tensors.values())


def test_tensors_arrive_in_the_layouts_order_and_format(layout: MessageLayout) -> None:
    slot = slot_of(layout)
    sent = tensors()
    slot.pack(Message(Kind.TRAIN, 0, tensors=dict(reversed(sent.items()))))
    arrived = slot.unpack().tensors
    assert list(arrived) == ["labels", "activation"]
    assert torch.equal(arrived["labels"], sent["labels"]) and torch.equal(arrived["activation"], sent["activation"])
    assert arrived["activation"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"activation": torch.rand(3, 4, 3, 1)}, r"activation.*3 rows.*\(4, 3, 1\)"),
        ({"activation": torch.rand(3, 4, 3, 2).double()}, "activation.*float64"),
        ({"activation": torch.rand(2, 4, 3, 2)}, "activation.*3 rows, got.*2"),
        ({"activation": None}, "activation.*3 rows, got None"),
        ({"labels": torch.arange(6), "activation": torch.rand(6, 4, 3, 2)}, "TRAIN message of 6 rows.*allows 5"),
        ({"ensemble": torch.rand(3, 10)}, "ensemble"),
    ],
    ids=["shape", "dtype", "uneven_rows", "missing", "too_many_rows", "unknown_tensor"],
)
def test_a_message_that_does_not_fit_is_refused(
    layout: MessageLayout, changed: dict[str, Tensor | None], message: str
) -> None:
    wrong = {name: tensor for name, tensor in (tensors() | changed).items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        layout.check(Message(Kind.TRAIN, 0, tensors=wrong))


def test_a_mark_with_tensors_is_refused(layout: MessageLayout) -> None:
    with pytest.raises(ValueError, match=r"END.*labels"):
        layout.check(Message(Kind.END, 0, tensors={"labels": torch.arange(3)}))


@pytest.mark.parametrize(
    "other",
    [
        MessageLayout(4, {Kind.TRAIN: (LABELS, ACTIVATION)}),
        MessageLayout(5, {Kind.EVALUATE: (LABELS, ACTIVATION)}),
        MessageLayout(5, {Kind.TRAIN: (ACTIVATION, LABELS)}),
        MessageLayout(5, {Kind.TRAIN: (LABELS,)}),
        MessageLayout(5, {Kind.TRAIN: (LABELS, TensorSpec("activation", (4, 3, 2), torch.float32))}),
        MessageLayout(5, {Kind.TRAIN: (LABELS, TensorSpec("activation", (4, 3, 2), torch.bfloat16, True))}),
        MessageLayout(5, {Kind.TRAIN: (LABELS, TensorSpec("activation", (4, 2, 3), torch.float32, True))}),
        MessageLayout(5, {Kind.TRAIN: (LABELS, TensorSpec("image", (4, 3, 2), torch.float32, True))}),
    ],
    ids=["max_rows", "kind", "order", "fewer", "memory_format", "dtype", "shape", "name"],
)
def test_a_message_of_another_layout_is_refused(other: MessageLayout) -> None:
    mine = MessageLayout(5, {Kind.TRAIN: (LABELS, ACTIVATION)})
    memory = memory_of(mine, other)
    Slot(mine, memory).pack(Message(Kind.TRAIN, 0, tensors=tensors()))
    with pytest.raises(ValueError, match=f"another layout.*{mine.code}.*{other.code}"):
        Slot(other, memory).unpack()


def test_the_code_is_the_same_wherever_and_in_whatever_order_a_layout_is_built() -> None:
    parts = {Kind.TRAIN: (LABELS, ACTIVATION), Kind.EVALUATE: (LOGITS,)}
    twin = {
        Kind.EVALUATE: (TensorSpec("ensemble", (10,), torch.float32),),
        Kind.TRAIN: (LABELS, TensorSpec("activation", (4, 3, 2), torch.float32, channels_last=True)),
    }
    assert MessageLayout(5, parts).code == MessageLayout(5, twin).code
