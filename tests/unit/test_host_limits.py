"""What a host must allow a run, said before anything starts."""

import os
import re
import resource
from pathlib import Path

import pytest

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning import host_limits
from greedypipe.launch.planning.host_limits import allow_open_files, check_host, files_of
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.workers import memory
from greedypipe.workers.links import shared_memory
from greedypipe.workers.memory import available_bytes


@pytest.fixture
def plan() -> Plan:
    settings = ["data.name=synthetic", "data.samples=64", "data.batch_size=16", "model.name=vgg8b", "model.width=0.1"]
    return make_plan(load_config(None, [*settings, "partition.blocks=3"]), 3)


def test_the_available_memory_is_between_nothing_and_all_of_the_host() -> None:
    available = available_bytes()
    assert available is not None
    assert 0 < available < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_the_tightest_control_group_counts_and_cached_files_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for group, limit, used, cached in (("", "max", 0, 0), ("job", 5000, 3000, 500), ("job/task", 9000, 1000, 0)):
        folder = tmp_path / group
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    groups = tmp_path / "groups"
    groups.write_text("0::/job/task\n")
    monkeypatch.setattr(memory, "GROUPS", groups)
    monkeypatch.setattr(memory, "GROUP_ROOT", tmp_path)
    assert available_bytes() == 5000 - 3000 + 500


def test_links_that_do_not_fit_are_refused_with_both_sizes(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    check_host(plan, plan.placement.seats())
    monkeypatch.setattr(host_limits, "available_bytes", lambda: 1 << 20)
    with pytest.raises(ConfigError, match=r"memory: the links need \d+ MB for their messages, got 1 MB available"):
        check_host(plan, plan.placement.seats())
    # Stage 0 makes no slots: they are the receivers'.
    check_host(plan, [plan.placement.seat_of(0)])


def test_links_of_feedback_count(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["data.name=synthetic", "data.samples=64", "data.batch_size=16", "model.name=vgg8b", "model.width=0.1"]
    late = make_plan(load_config(None, [*overrides, "partition.blocks=3", "method.name=ddg", "feedback.delay=2"]), 3)
    for seat in plan.placement.seats():
        assert files_of(late, seat) > files_of(plan, seat)
    monkeypatch.setattr(host_limits, "available_bytes", lambda: 0)
    with pytest.raises(ConfigError, match=r"feedback\.delay or data\.batch_size"):  # stage 0 receives feedback alone
        check_host(late, [late.placement.seat_of(0)])


def test_slots_that_do_not_fit_are_named_by_their_link(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "available_bytes", lambda: 1000)
    complaint = r"link0-1: 4 slots of [\d,]+ bytes in shared memory: got 1,000 bytes available on this host, needed [\d,]+"
    with pytest.raises(MemoryError, match=complaint):
        shared_memory._new_memory("link0-1", 4, plan.layout_after(0))


def test_a_kernel_that_refuses_memory_is_quoted(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(MemoryError, match=re.escape("in shared memory: No space left on device")):
        shared_memory._new_memory("link0-1", 4, plan.layout_after(0))
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_soft_limit_of_open_files_is_raised_as_far_as_needed(plan: Plan) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(files_of(plan, seat) for seat in plan.placement.seats())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed - 1, before[1]))
        allow_open_files(plan)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (needed, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_loader_processes_and_links_count(plan: Plan) -> None:
    first, middle, last = (files_of(plan, seat) for seat in plan.placement.seats())
    assert middle > first == last
    data = plan.config.data.model_copy(update={"loader_workers": 4})
    loading = Plan(plan.config.model_copy(update={"data": data}), plan.data, plan.blueprint, plan.placement)
    assert files_of(loading, plan.placement.seat_of(0)) > first
    assert files_of(loading, plan.placement.seat_of(1)) == middle
