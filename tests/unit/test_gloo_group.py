"""On what a group of gloo's listens."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from greedypipe.workers.links import gloo_group
from greedypipe.workers.links.gloo_group import make_gloo_group
from greedypipe.workers.links.patience import Patience

LOOPBACK, LISTENS = "0100007F", "0A"


def groups() -> list[Any]:
    store = HashStore()

    def make(rank: int) -> Any:
        return make_gloo_group(store, rank, 2, patience=Patience("the other", 10), deadline_s=10)

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(make, range(2)))


def own_listeners() -> set[str]:
    """Addresses (hexadecimal) on which this process listens for TCP connections."""
    inodes = {os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink() and entry.exists()}
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == LISTENS and f"socket:[{row[9]}]" in inodes}


def sums(pair: list[Any]) -> list[float]:
    tensors = [torch.ones(1), torch.ones(1)]
    for work in [group.allreduce([tensor]) for group, tensor in zip(pair, tensors, strict=True)]:
        work.wait()
    return [tensor.item() for tensor in tensors]


def test_members_of_one_host_listen_on_the_loopback_interface_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gloo_group.OWN_INTERFACES, raising=False)
    before = own_listeners()
    pair = groups()
    found = own_listeners()
    assert LOOPBACK in found and found - before <= {LOOPBACK}
    assert sums(pair) == [2.0, 2.0]


@pytest.mark.parametrize("interfaces", ["", "lo"])
def test_members_of_several_hosts_take_torch_s_own_or_the_named_interfaces(
    interfaces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gloo_group.OWN_INTERFACES, interfaces)
    hosts = iter(["one", "other"])
    monkeypatch.setattr(gloo_group, "memory_of_host", lambda: next(hosts))
    assert sums(groups()) == [2.0, 2.0]
