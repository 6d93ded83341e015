"""Objects with tensors from process to process, here both ends in one."""

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import nn

from greedypipe.workers.data.passing import Parcel, receive


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        yield ours, theirs


def passed(value: object, ends: tuple[Connection, Connection]) -> object:
    parcel = Parcel.of(value)
    parcel.send(ends[0])
    parcel.close()
    return receive(ends[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64, torch.bfloat16, torch.bool])
def test_tensors_arrive_with_their_bits_and_shapes(dtype: torch.dtype, ends: tuple[Connection, Connection]) -> None:
    whole = torch.randint(0, 2, (5, 3, 7)).to(dtype)
    sent = {"whole": whole, "strided": whole[:, :, ::2].transpose(0, 1), "scalar": whole[0, 0, 0], "empty": whole[:0]}
    came = passed(sent, ends)
    assert isinstance(came, dict)
    for name, tensor in sent.items():
        assert came[name].dtype == dtype and torch.equal(came[name], tensor)
    came["whole"].zero_()
    assert torch.equal(came["strided"], sent["strided"]), "every tensor has memory of its own"


def test_what_is_more_than_its_contents_arrives_as_a_pickle(ends: tuple[Connection, Connection]) -> None:
    came = passed([nn.Parameter(torch.ones(2)), torch.ones(3, requires_grad=True), "text"], ends)
    assert isinstance(came, list)
    assert isinstance(came[0], nn.Parameter) and came[1].requires_grad and came[2] == "text"


def test_several_receivers_share_one_memory_and_nothing_stays_open(ends: tuple[Connection, Connection]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    parcel = Parcel.of(torch.arange(10))
    for _ in range(2):
        parcel.send(ends[0])
    parcel.close()
    one, two = receive(ends[1]), receive(ends[1])
    one[0] = 7
    assert two[0] == 7
    assert "memfd:tensors" in Path("/proc/self/maps").read_text()
    del one, two
    assert len(os.listdir("/proc/self/fd")) == before
