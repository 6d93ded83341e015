"""Which transport follows from where two stages are."""

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from greedypipe.workers.links import place
from greedypipe.workers.links.place import Place, choose

HOST = Place("boot-1 4026", "cpu")
GPU = Place("boot-1 4026", "cuda", "GPU-a", "2.28.9", 7)
OTHER_GPU = replace(GPU, gpu="GPU-b")
ELSEWHERE = {"memory": "boot-2 4026", "processes": 9}

AUTO = [
    (HOST, HOST, "shm"),
    (HOST, replace(HOST, memory="boot-2 4026"), "gloo"),
    (HOST, GPU, "gloo"),
    (GPU, GPU, "ipc"),
    (GPU, OTHER_GPU, "nccl"),
    (GPU, replace(OTHER_GPU, **ELSEWHERE), "nccl"),
    (GPU, replace(OTHER_GPU, nccl="2.30.7"), "gloo"),
    (replace(GPU, nccl=""), replace(OTHER_GPU, nccl=""), "gloo"),
    (GPU, replace(OTHER_GPU, launches_block=True), "gloo"),
    (GPU, replace(GPU, expandable=True), "gloo"),
    (GPU, replace(OTHER_GPU, expandable=True), "nccl"),
    (GPU, replace(GPU, processes=8), "gloo"),
    (replace(HOST, device="meta"), replace(HOST, device="meta"), "gloo"),
]


@pytest.mark.parametrize(("one", "other", "transport"), AUTO)
def test_auto_takes_the_nearest_way(one: Place, other: Place, transport: str) -> None:
    assert choose("auto", one, other, "stage 1") == choose("auto", other, one, "stage 0") == transport


def test_memory_of_one_gpu_can_be_written_by_a_stage_on_another_if_asked_for() -> None:
    assert choose("ipc", GPU, OTHER_GPU, "stage 1") == "ipc"


REFUSED = [
    ("shm", HOST, replace(HOST, memory="boot-2 1"), "shares no host memory"),
    ("shm", GPU, GPU, "is not on the CPU"),
    ("ipc", GPU, HOST, "is not on a GPU"),
    ("ipc", GPU, replace(GPU, **ELSEWHERE), "another host.*another container"),
    ("ipc", GPU, replace(GPU, expandable=True), "expandable_segments"),
    ("nccl", HOST, HOST, "is not on a GPU"),
    ("nccl", GPU, GPU, "on the same GPU.*NCCL refuses"),
    ("nccl", GPU, replace(OTHER_GPU, nccl="2.30.7"), r"NCCL 2\.30\.7, this stage 2\.28\.9"),
    ("nccl", replace(GPU, launches_block=True), OTHER_GPU, "CUDA_LAUNCH_BLOCKING"),
]


@pytest.mark.parametrize(("wanted", "here", "there", "reason"), REFUSED)
def test_a_transport_that_cannot_be_is_refused_in_one_line(wanted: str, here: Place, there: Place, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"link.transport: got {wanted}, but stage 1 .*{reason}.*use gloo or auto") as one:
        choose(wanted, here, there, "stage 1")
    assert "\n" not in str(one.value)


def test_both_ends_always_choose_the_same() -> None:
    places = [HOST, GPU, *(other for _, other, _ in AUTO)]
    for one, other in itertools.product(places, repeat=2):
        assert choose("auto", one, other, "a") == choose("auto", other, one, "b")


def test_a_place_on_a_gpu_names_it_by_what_all_processes_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def properties(device: torch.device) -> SimpleNamespace:
        asked.append(device)
        return SimpleNamespace(uuid="GPU-5")

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 28, 9))
    monkeypatch.setattr(place, "is_nccl_available", lambda: True)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64, expandable_segments:True")
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    found = Place.of(torch.device("cuda", 3))
    assert asked == [torch.device("cuda", 3)]
    assert (found.device, found.gpu, found.nccl) == ("cuda", "GPU-5", "2.28.9")
    assert found.expandable and found.launches_block and found.processes > 0
    assert Place.read(found.text()) == found


def test_a_place_on_the_cpu_asks_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", None)
    assert Place.of(torch.device("cpu")) == Place(place.memory_of_host(), "cpu")
