"""What a stage does for its GPU, as far as a machine without one can tell."""

import io
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from rich.console import Console

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.on_host import fork_server
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.launch.process import launcher, lead, run_process
from greedypipe.launch.reporting.tables import headline, start_table
from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.randomness import seed_global_generator
from greedypipe.workers import replicas
from greedypipe.workers.around.scripted_faults import SlowedBlock
from greedypipe.workers.devices import current, gpu
from greedypipe.workers.devices.gpu import gpu_versions, report_gpu, sharing
from greedypipe.workers.placement import PlacementConfig, Seat
from greedypipe.workers.telemetry.board import Board
from greedypipe.workers.telemetry.machine import hardware
from greedypipe.workers.telemetry.meter import Stopwatch, Waits
from greedypipe.workers.telemetry.records import Gpu
from greedypipe.workers.telemetry.results import GpuReport
from greedypipe.workers.telemetry.topics import GPU

SECOND = torch.device("cuda", 1)
TINY = ["data.name=digits", "model.name=mlp", "partition.blocks=2"]


class Reached(Exception):
    """Carries what was passed to the place of interest."""


def is_unset(patches: pytest.MonkeyPatch, variable: str) -> None:
    """Unsets it, and again what the test has others set in its place."""
    patches.setenv(variable, "")
    patches.delenv(variable)


@pytest.fixture
def _driver_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two GPUs that NVML sees, on a machine where whoever starts the driver is caught."""

    def caught(*arguments: object) -> None:
        raise AssertionError("the driver was started")

    for name in ("_cuda_getDeviceCount", "_cuda_init"):
        monkeypatch.setattr(torch._C, name, caught, raising=False)
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: True)
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: 2)
    yield
    assert not torch.cuda.is_initialized()


@pytest.mark.usefixtures("_driver_is_left_alone")
def test_a_launcher_that_still_forks_counts_gpus_without_starting_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(load_config(None, TINY), 2)
    assert [plan.placement.device_of(rank, PlacementConfig()) for rank in range(3)] == [
        torch.device("cuda", 0),
        SECOND,
        torch.device("cuda", 0),
    ]
    is_unset(monkeypatch, launcher.NVML_CHECK)
    with pytest.raises(AssertionError, match="driver was started"):
        torch.cuda.is_available()
    launcher.count_gpus_without_driver()
    assert torch.cuda.is_available()


def test_a_fork_server_is_told_so_and_a_user_who_says_otherwise_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(fork_server, "start_fork_server", lambda preload: seen.append(os.environ[launcher.NVML_CHECK]))
    for before in (None, "0"):
        with monkeypatch.context() as around:
            is_unset(around, launcher.NVML_CHECK)
            if before:
                around.setenv(launcher.NVML_CHECK, before)
            fork_server.start(())
    assert seen == ["1", "0"]


def test_children_of_the_fork_server_can_still_start_cuda() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        asked = [pool.submit(question) for question in (torch.cuda.is_initialized, torch.cuda._is_in_bad_fork)]
        assert [one.result(timeout=30) for one in asked] == [False, False]


@pytest.mark.usefixtures("_driver_is_left_alone")
def test_a_stage_on_the_cpu_of_a_machine_with_gpus_starts_no_driver() -> None:
    current.make_current(torch.device("cpu"))
    plan = make_plan(load_config(None, [*TINY, "placement.device=cpu"]), 2)
    block = plan.blueprint.build_block(0, plan.placement.device_of(0, plan.config.placement))
    assert block.device.type == "cpu"


def test_a_process_makes_its_gpu_the_current_one_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(device: torch.device) -> None:
        raise Reached(device)

    monkeypatch.setattr(torch.cuda, "set_device", reached)
    placement = SimpleNamespace(device_of=lambda local_rank, config: torch.device("cuda", local_rank))
    config = SimpleNamespace(faults=None, placement=None, training=SimpleNamespace(deterministic=False))
    member: Any = SimpleNamespace(plan=SimpleNamespace(config=config, placement=placement), local_rank=1)
    nobody: Any = None
    with pytest.raises(Reached) as caught:
        run_process.run_stage(member, nobody, nobody)
    assert caught.value.args == (SECOND,)


def test_the_generator_of_the_stages_own_gpu_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    generators = torch.Generator(), torch.Generator()
    monkeypatch.setattr(torch.cuda, "default_generators", generators)
    untouched = [generator.initial_seed() for generator in (generators[0], torch.default_generator)]
    seed_global_generator(SECOND, 123)
    assert generators[1].initial_seed() == 123
    assert [generator.initial_seed() for generator in (generators[0], torch.default_generator)] == untouched


class FakeGroup:
    """Stands in for a process group: counts what is reduced."""

    def __init__(self) -> None:
        self.reduced: list[torch.device] = []

    def allreduce(self, tensors: list[torch.Tensor], options: object) -> Any:
        self.reduced += [tensor.device for tensor in tensors]
        return SimpleNamespace(wait=lambda: None)


def test_replicas_agree_over_the_host_and_sum_over_the_device() -> None:
    device, host = FakeGroup(), FakeGroup()
    stage = replicas.DataParallel(Seat(0, 0, 0, 2), device, host)
    assert stage.agree(True) and not stage.agree(False)
    assert (device.reduced, host.reduced) == ([], [torch.device("cpu")] * 2)


def test_replicas_on_gpus_join_nccls_group_on_their_own_device_and_gloos_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Any] = []

    class FakeNccl:
        class Options:
            pass

        def __init__(self, store: object, rank: int, size: int, options: Any) -> None:
            self.group = [rank, size, options.group_name]

        def eager_connect_single_device(self, device: torch.device) -> None:
            made.append([*self.group, device])

    monkeypatch.setattr(replicas.dist, "ProcessGroupNCCL", FakeNccl, raising=False)
    monkeypatch.setattr(replicas, "make_gloo_group", lambda *arguments, **keys: made.append("gloo"))
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 2)
    replicas.join_replicas(Seat(3, 2, 1, 2), store, SECOND, 5.0, lambda: False)
    assert made == ["gloo", SECOND, [1, 2, "replicas of stage 2", SECOND]]


def gpus_of(*uuids: str) -> list[Gpu]:
    return [Gpu(f"cuda:{number % 2}", "NVIDIA H200", uuid) for number, uuid in enumerate(uuids)]


def test_the_headline_says_which_processes_share_a_gpu_whatever_each_calls_it() -> None:
    plan = make_plan(load_config(None, [*TINY, "placement.device=cpu"]), 2)
    assert sharing(gpus_of("a", "b")) == []
    assert sharing(gpus_of("a", "b", "a", "b")) == [
        "2 processes share cuda:0 (NVIDIA H200), and take turns on it",
        "2 processes share cuda:1 (NVIDIA H200), and take turns on it",
    ]
    (line,) = sharing([Gpu("cuda:0", "NVIDIA H200", "a")] * 4)
    assert line in headline(plan, [Gpu("cuda:0", "NVIDIA H200", "a")] * 4).splitlines()
    assert "share" not in headline(plan) and "share" not in headline(plan, [*gpus_of("a"), None])


def test_the_start_table_has_the_device_that_each_process_has_told() -> None:
    plan = make_plan(load_config(None, [*TINY, "placement.device=cpu"]), 2)
    for gpus, expected in (((), ["cpu", "cpu"]), (gpus_of("a", "b"), ["cuda:0", "cuda:1"]), ([None], ["cpu", "cpu"])):
        console = Console(record=True, width=200, file=io.StringIO())
        console.print(start_table(plan, gpus))
        words = console.export_text().split()
        assert [word for word in words if word == "cpu" or word.startswith("cuda:")] == expected


def test_the_leader_waits_for_late_gpus_and_not_at_all_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(torch.distributed.HashStore(), 2)
    first, second = gpus_of("a", "a")
    monkeypatch.setattr(lead, "GPUS_S", 0.05)
    assert lead._gpus(board) == []
    board.post(GPU, 0, first)
    assert lead._gpus(board) == [first, None]
    board.post(GPU, 1, second)
    assert lead._gpus(board) == [first, second]


def test_a_report_has_the_gpu_its_peaks_and_all_that_is_used_there(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="NVIDIA H200", uuid="1234")
    for name, answer in {
        "get_device_properties": properties,
        "mem_get_info": (30, 100),
        "max_memory_allocated": 5,
        "max_memory_reserved": 8,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    watch = Stopwatch()
    watch.count_training(3.0, Waits(1.0), 8)
    assert report_gpu(SECOND, watch) == GpuReport("cuda:1", "NVIDIA H200", "1234", 5, 8, 70, 2.0)
    assert report_gpu(torch.device("cpu"), watch) is None


@pytest.mark.usefixtures("_driver_is_left_alone")
def test_figures_of_a_run_on_the_cpu_ask_no_driver() -> None:
    assert hardware()["gpus"] == [] and gpu_versions() == {}


def test_versions_of_a_run_on_a_gpu_have_those_of_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 28, 9))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91300)
    monkeypatch.setattr(gpu, "DRIVER", tmp_path / "version")
    found = gpu_versions()
    assert (found["cudnn"], found["driver"], found["cuda"]) == ("91300", "", str(torch.version.cuda))
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23\nGCC 12.2\n")
    assert gpu_versions()["driver"] == "580.95.05"
    if torch.distributed.is_nccl_available():
        assert found["nccl"] == "2.28.9"


def test_a_slowed_block_on_a_gpu_waits_for_it_before_it_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    current.waiting_for(SECOND)()
    current.waiting_for(torch.device("cpu"))()
    assert waited == [SECOND]
    block: Any = SimpleNamespace(device=SECOND, forward=lambda x, batch: x, learn=lambda feedback, drains: None)
    slowed = SlowedBlock(block, 1.5)
    slowed.forward(torch.zeros(1), Batch(0, torch.zeros(1)))
    slowed.learn()
    assert waited == [SECOND] * 3


def test_a_deterministic_run_tells_torch_so_before_cuda_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    is_unset(monkeypatch, "CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch, "use_deterministic_algorithms", told.append)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: told.append(os.environ["CUBLAS_WORKSPACE_CONFIG"]))
    for where, name in ((torch.backends.cudnn, "deterministic"), (torch.backends.cudnn, "benchmark")):
        monkeypatch.setattr(where, name, getattr(where, name))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(allow_tf32=True))
    monkeypatch.setattr(run_process, "gpu_of", lambda device: told.append(device))
    monkeypatch.setattr(run_process, "reset_peak_memory", Mock(side_effect=Reached))
    placement = SimpleNamespace(device_of=lambda local_rank, config: SECOND)
    config = SimpleNamespace(faults=None, placement=None, training=SimpleNamespace(deterministic=True))
    member: Any = SimpleNamespace(plan=SimpleNamespace(config=config, placement=placement), local_rank=1)
    nobody: Any = None
    with pytest.raises(Reached):
        run_process.run_stage(member, nobody, nobody)
    assert told == [True, ":4096:8", SECOND]
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_it_is_refused_where_it_makes_no_difference() -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(load_config(None, [*TINY, "placement.device=cpu", "training.deterministic=true"]), 2)
    assert str(caught.value).splitlines() == [
        "training.deterministic: got true with stages on CPUs, allowed: false: they repeat their bits as they are"
    ]
