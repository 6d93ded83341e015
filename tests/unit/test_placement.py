import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.placement import Placement, PlacementConfig


@given(st.integers(1, 40), st.data())
def test_every_block_is_hosted_once_in_order_and_stages_differ_by_one_at_most(num_blocks: int, data: st.DataObject) -> None:
    num_stages = data.draw(st.integers(1, num_blocks))
    hosted = [Placement((1,) * num_stages, num_blocks).blocks_of(stage) for stage in range(num_stages)]
    assert [block for stage in hosted for block in stage] == list(range(num_blocks))
    assert max(map(len, hosted)) - min(map(len, hosted)) <= 1


def test_four_blocks_on_three_stages_leave_the_pair_to_the_last() -> None:
    placement = Placement((1, 1, 1), 4)
    assert [list(placement.blocks_of(stage)) for stage in range(3)] == [[0], [1], [2, 3]]


def test_more_stages_than_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="5 stages for 4 blocks"):
        Placement((1,) * 5, 4)


def test_gpus_are_dealt_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = [Placement((1,) * 4, 4).device_of(rank, PlacementConfig()) for rank in range(4)]
    assert [device.index for device in devices] == [0, 1, 0, 1]
    assert Placement((1,) * 4, 4).device_of(0, PlacementConfig(device="cpu")) == torch.device("cpu")


def test_ranks_count_the_replicas_of_the_first_stage_first() -> None:
    placement = Placement.deal((1, 2, 1), 4, 3)
    assert [seat.label for seat in placement.seats()] == ["0", "1.0", "1.1", "2"]
    assert [placement.seat_of(rank) for rank in range(4)] == list(placement.seats())
    assert Placement.deal((2,), 6, 3).replicas == (2, 2, 2)


@pytest.mark.parametrize(
    ("replicas", "processes", "message"),
    [
        ((1, 2, 1), 3, "is 4 processes, but 3 were started"),
        ((2,), 3, "a divisor of the number of processes, 3"),
        ((1,), 4, "4 stages for 3 blocks"),
    ],
)
def test_processes_that_do_not_go_up_are_refused(replicas: tuple[int, ...], processes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Placement.deal(replicas, processes, 3)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 200))
def test_every_row_takes_one_way_to_the_next_stage_and_rows_stay_in_order(ours: int, theirs: int, rows: int) -> None:
    placement = Placement((ours, theirs), 2)
    batch = Message(Kind.TRAIN, 0, tensors={"labels": torch.arange(rows)})
    held = {seat: batch.part(seat.part) for seat in placement.replicas_of(0)}
    arrived = {
        receiver: [
            held[route.sender].part(route.part, route.sender.part)
            for route in placement.routes_after(0)
            if route.receiver == receiver
        ]
        for receiver in placement.replicas_of(1)
    }
    got = [row for parts in arrived.values() for part in parts for row in part.tensors["labels"].tolist()]
    assert got == list(range(rows))
    assert [sum(part.rows for part in parts) for parts in arrived.values()] == [
        batch.part(receiver.part).rows for receiver in arrived
    ], "whoever sent them, a replica has the same rows"
    assert sum(route.part.share for route in placement.routes_after(0)) == 1
    assert {part.batch_rows for parts in arrived.values() for part in parts if part.rows < rows} <= {rows}
