"""The wire over NCCL and its groups, as far as a machine without a GPU can tell; and what torch is told of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._C._distributed_c10d import ErrorType
from torch.distributed import DistBackendError, HashStore

from greedypipe.launch import run
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host import ranks
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.launch.process import rank, run_process
from greedypipe.launch.process.environment import Environment
from greedypipe.launch.recovery.life import FIRST_LIFE
from greedypipe.workers.links import nccl
from greedypipe.workers.links.nccl import ENVIRONMENT, NcclWire, leave_ending_to_supervisor, make_nccl_group
from greedypipe.workers.links.pacing import BrokenWire
from greedypipe.workers.links.patience import Patience
from tests.conformance.implementations import TIMEOUT_S
from tests.conformance.stand_ins import FakeWork

TINY = ["data.name=digits", "model.name=mlp", "partition.blocks=2", "placement.device=cpu"]
ALONE = Environment(0, 0, 1, 0)


class RecordingGroup:
    """ProcessGroupNCCL's calls, written down."""

    calls: list[tuple[Any, ...]] = []  # noqa: RUF012

    class Options:
        def __init__(self, is_high_priority_stream: bool) -> None:
            self.config = type("Config", (), {})()
            assert is_high_priority_stream

    def __init__(self, store: Any, rank: int, size: int, options: Any) -> None:
        self.calls.append((rank, size, options._timeout.days, vars(options.config), options.group_name))

    def eager_connect_single_device(self, device: torch.device) -> None:
        self.calls.append(("connect", device))


def test_a_group_is_connected_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nccl.dist, "ProcessGroupNCCL", RecordingGroup, raising=False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: RecordingGroup.calls.append(("device", device)))
    gpu = torch.device("cuda", 3)
    make_nccl_group(HashStore(), 1, gpu, "link0-1", Patience("stage 0", TIMEOUT_S))
    assert RecordingGroup.calls == [
        ("device", gpu),
        (1, 2, 1, {"min_ctas": 1, "max_ctas": 4}, "link0-1"),
        ("connect", gpu),
    ]


def test_the_options_are_those_of_torch() -> None:
    options: Any = nccl.dist.ProcessGroupNCCL.Options(is_high_priority_stream=True)
    options._timeout = nccl.FOREVER
    options.config.min_ctas, options.config.max_ctas = 1, nccl.MAX_CTAS
    options.group_name = "link0-1"
    assert options._timeout.days == 1
    assert ErrorType.SUCCESS.name == nccl.SUCCESS
    calls = ("send", "recv", "abort", "get_error", "eager_connect_single_device")
    assert all(hasattr(nccl.dist.ProcessGroupNCCL, name) for name in calls)


def test_a_wire_is_aborted_once() -> None:
    aborted: list[int] = []
    group = type("Group", (), {"abort": lambda self: aborted.append(1)})()
    wire = NcclWire(group, 0, "stage 1")
    wire.abort(), wire.abort()
    assert aborted == [1]


class FailingGroup:
    """Fails at once, or later without a word of its own."""

    error = ErrorType.SUCCESS
    raises = ""

    def send(self, tensors: list[torch.Tensor], peer: int, tag: int) -> FakeWork:
        if self.raises:
            raise DistBackendError(self.raises)
        return FakeWork(lambda: None)

    recv = send

    def get_error(self) -> ErrorType:
        return self.error

    def abort(self) -> None:
        self.error = ErrorType.COMM_ERROR


@pytest.mark.parametrize("error", [ErrorType.COMM_ERROR, ErrorType.TIMEOUT, ErrorType.REMOTE_ERROR])
def test_a_wire_says_what_nccl_has_reported_and_puts_nothing_more_on_its_lane(error: ErrorType) -> None:
    group, memory = FailingGroup(), torch.zeros(1, dtype=torch.uint8)
    wire = NcclWire(group, 0, "stage 1")
    wire.check(), wire.send(memory), wire.receive(memory)
    group.error, group.raises = error, "it must not be asked to send"
    for call in (wire.check, lambda: wire.send(memory), lambda: wire.receive(memory)):
        with pytest.raises(BrokenWire) as caught:
            call()
        assert str(caught.value) == f"lost stage 1: NCCL reports {error.name} (NCCL_DEBUG=INFO says more)"


def test_a_wire_passes_on_the_first_line_of_an_error_of_a_call() -> None:
    group = FailingGroup()
    group.raises = "NCCL error in: NCCLUtils.cpp:1, remote process exited\nncclRemoteError: a call failed\nmore"
    with pytest.raises(BrokenWire) as caught:
        NcclWire(group, 0, "stage 1").send(torch.zeros(1, dtype=torch.uint8))
    assert str(caught.value).startswith("lost stage 1: NCCL reports NCCL error in: NCCLUtils.cpp:1, remote process exited (")


def test_an_aborted_wire_has_nothing_to_say() -> None:
    wire = NcclWire(FailingGroup(), 0, "stage 1")
    wire.abort(), wire.check()


def test_torchs_own_threads_are_told_to_end_no_process_unless_a_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "")  # what is set below is gone again behind this test
        monkeypatch.delenv(name)
    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "7")
    leave_ending_to_supervisor()
    assert {name: os.environ[name] for name in ENVIRONMENT} == {**ENVIRONMENT, "TORCH_FR_BUFFER_SIZE": "7"}
    headers = Path(torch.__file__).parent / "include/torch/csrc/distributed/c10d"
    known = "".join((headers / name).read_text() for name in ("ProcessGroupNCCL.hpp", "FlightRecorder.hpp"))
    assert [name for name in ENVIRONMENT if f'"{name}"' not in known] == []


class Reached(Exception):
    """Something has come to the place of interest."""


def begun_by_torchrun(plan: Plan, folder: Path) -> None:
    run._work(ALONE, plan, None, FIRST_LIFE)


def begun_on_this_host(plan: Plan, folder: Path) -> None:
    ranks.run_told(plan, ALONE, folder, None, FIRST_LIFE, lambda store: None)  # type: ignore[arg-type, return-value]


def begun_by_ray(plan: Plan, folder: Path) -> None:
    pytest.importorskip("ray")
    from greedypipe.launch.on_ray import actors

    actors.run_told(plan, ALONE, folder, None, FIRST_LIFE, actors.RemoteScreen)


@pytest.mark.parametrize("begin", [begun_by_torchrun, begun_on_this_host, pytest.param(begun_by_ray, marks=pytest.mark.ray)])
def test_every_launchers_process_tells_them_so_before_it_has_a_device(
    begin: Callable[[Plan, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached() -> None:
        raise Reached

    plan = make_plan(load_config(None, [*TINY, f"run.folder={tmp_path}"]), 1)
    monkeypatch.setattr(run_process, "leave_ending_to_supervisor", reached)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: pytest.fail("too late"))
    assert rank.run_stage is run_process.run_stage
    with pytest.raises(Reached):
        begin(plan, tmp_path)
