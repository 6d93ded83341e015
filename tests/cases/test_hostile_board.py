"""Somebody writes on the status board of a run: no other process dies of it, and the run's own watch goes on."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import Store, TCPStore

from greedypipe.launch.on_host import ranks
from greedypipe.launch.on_host.local_run import run_pipeline
from tests.multiprocess.harness import TINY

STATUS_OF_STAGE_1 = "greedypipe/0/board/status/1"


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """The stores of the runs that a test starts."""
    found: list[Store] = []
    make = ranks.host_store

    def host_store() -> tuple[TCPStore, int]:
        store, port = make()
        found.append(store)
        return store, port

    monkeypatch.setattr(ranks, "host_store", host_store)
    return found


@pytest.fixture
def bystander() -> "Iterator[subprocess.Popen[bytes]]":
    """A process of the same user that has nothing to do with the run."""
    process = subprocess.Popen(["sleep", "100"])
    yield process
    process.kill()
    process.wait()


def attack(stores: list[Store], victim: int, seconds: float) -> None:
    """Puts another pid into the row of stage 1 as soon as it is there, and what is no row after that."""
    deadline = time.monotonic() + 30
    while not (stores and stores[0].check([STATUS_OF_STAGE_1])) and time.monotonic() < deadline:
        time.sleep(0.01)
    row = json.loads(stores[0].get(STATUS_OF_STAGE_1)) | {"pid": victim}
    for text in (json.dumps(row), "no json"):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            stores[0].set(STATUS_OF_STAGE_1, text)
            time.sleep(0.002)


@pytest.mark.slow
def test_a_stage_that_stands_still_is_killed_and_no_process_that_a_row_names(
    stores: list[Store], bystander: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    attacker = threading.Thread(target=attack, args=(stores, bystander.pid, 4.0), daemon=True)
    attacker.start()
    settings = ["partition.blocks=2", "faults.policy=isolate", "faults.heartbeat_timeout_s=1", "training.epochs=3"]
    fault = ["debug.fault=stop", "debug.fault_stage=1", "debug.fault_step=2"]
    outcome = run_pipeline([*TINY, *settings, *fault], 2, tmp_path / "run")
    attacker.join(20)
    assert outcome.exit_codes == [0, 0], outcome.printed
    assert outcome.summary["stages"][1]["restarts"] == 1
    assert bystander.poll() is None
    said = "\n".join(outcome.printed)
    assert "in _watch" not in said and said.count("cannot be read and is ignored") <= 1
