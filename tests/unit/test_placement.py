import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from launch.placement import Placement, PlacementConfig


@given(st.integers(1, 40), st.data())
def test_every_block_is_hosted_once_in_order_and_stages_differ_by_one_at_most(num_blocks: int, data: st.DataObject) -> None:
    num_stages = data.draw(st.integers(1, num_blocks))
    hosted = [Placement(num_stages, num_blocks).blocks_of(stage) for stage in range(num_stages)]
    assert [block for stage in hosted for block in stage] == list(range(num_blocks))
    assert max(map(len, hosted)) - min(map(len, hosted)) <= 1


def test_four_blocks_on_three_stages_leave_the_pair_to_the_last() -> None:
    placement = Placement(3, 4)
    assert [list(placement.blocks_of(stage)) for stage in range(3)] == [[0], [1], [2, 3]]


def test_more_stages_than_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="5 processes for 4 blocks"):
        Placement(5, 4)


def test_gpus_are_dealt_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = [Placement(4, 4).device_of(rank, PlacementConfig()) for rank in range(4)]
    assert [device.index for device in devices] == [0, 1, 0, 1]
    assert Placement(4, 4).device_of(0, PlacementConfig(device="cpu")) == torch.device("cpu")
