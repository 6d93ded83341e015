"""How the stages of a run agree on a cut."""

import pytest
import torch
from torch.distributed import HashStore

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.auto_cut import settle_cut
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.activity import Activity
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.status import StageStatus

CPU = torch.device("cpu")


AUTO = ("partition.boundaries=auto", "partition.profile_s=0.05")


def plan(*overrides: str) -> Plan:
    tiny = ("data.name=digits", "model.name=mlp", "head.name=linear", "partition.blocks=2")
    return make_plan(load_config(None, [*tiny, *overrides]), 2)


def status(stage: int) -> StageStatus:
    return StageStatus(Seat(stage, stage), [stage], 1, "here")


def test_every_stage_gets_the_cut_that_stage_0_has_found() -> None:
    board = Board(HashStore(), 2)
    found, predicted = settle_cut(plan(*AUTO), board, status(0), CPU)
    told, also_predicted = settle_cut(plan(*AUTO), board, status(1), CPU)
    assert told.config == found.config and predicted == also_predicted
    assert predicted is not None
    assert list(found.config.partition.boundaries) == list(predicted.boundaries) != []


def test_a_stage_that_is_not_told_names_whom_it_waits_for() -> None:
    waiting = status(1)
    with pytest.raises(TimeoutError, match="for stage 0 to measure layers"):
        settle_cut(plan(*AUTO, "faults.timeout_s=1"), Board(HashStore(), 2), waiting, CPU)
    assert (waiting.activity, waiting.peer) == (Activity.WAIT_CUT, "stage 0")


def test_named_boundaries_stay_and_nobody_waits() -> None:
    named = plan("partition.boundaries=[fc2]")
    assert settle_cut(named, Board(HashStore(), 2), status(1), CPU) == (named, None)
