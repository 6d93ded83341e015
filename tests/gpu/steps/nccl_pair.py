"""Step 5: two ranks of torch's NCCL group on one GPU: time to connect, memory, contents and time by size, abort.

A half of a transfer is put on the device only when the other process is about to put on its own: the word goes first.
"""

import statistics
import sys
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from tests.gpu.facts import Facts, Setting
from tests.gpu.nccl import Moment, free_mib, fresh_file, make_group, own_device, set_environment, tell_logs, within
from tests.gpu.two import run_two, told

SIZES = (64, 2**16, 2**20, 2**23, 2**25)
FEW_FROM = 2**23
"""From this size on there are few rounds: without MPS the two processes take turns on the GPU."""
ROUNDS, FEW_ROUNDS = 12, 4
CONNECT_S, TRANSFER_S, LIMIT_S = 40.0, 20.0, 75.0


def run(found: Facts, setting: Setting) -> None:
    fresh_file(setting.scratch, "nccl_pair")
    codes = run_two(end, found, setting, LIMIT_S)
    found.put("exit codes", codes == [0, 0], codes=codes)


def end(found: Facts, setting: Setting, rank: int, pipe: Connection) -> None:
    set_environment(setting.scratch, rank, apart=True)
    side = Side(setting, rank, pipe)
    ok = found.attempt(f"rank {rank}: connect", side.connect) and found.attempt(f"rank {rank}: transfers", side.transfers)
    if ok and side.device.type == "cuda":
        found.attempt(f"rank {rank}: abort", side.abort)
    if not ok:
        tell_logs(setting.scratch, rank)
        sys.stdout.flush()


class Side:
    """One of the two ranks."""

    def __init__(self, setting: Setting, rank: int, pipe: Connection) -> None:
        self.device = own_device(setting)
        self._file, self._rank, self._pipe = setting.scratch / "nccl_pair.store", rank, pipe
        self._group: Any = None

    def connect(self) -> dict[str, Any]:
        """Makes the communicator."""
        torch.zeros(1, device=self.device)
        before, started = free_mib(self.device), time.monotonic()
        make = partial(make_group, self._file, self._rank, 2, self.device)
        self._group = within(CONNECT_S, f"rank {1 - self._rank}", make, self.device)
        return {"connect_s": round(time.monotonic() - started, 2), "used_mib": before - free_mib(self.device)}

    def transfers(self) -> dict[str, Any]:
        """All sizes."""
        sizes = SIZES if self.device.type == "cuda" else SIZES[:2]
        before = free_mib(self.device)
        medians = {str(size): self._median_us(size) for size in sizes}
        return {"median_us": medians, "used_mib": before - free_mib(self.device)}

    def _median_us(self, size: int) -> float:
        memory = torch.zeros(size, dtype=torch.uint8, device=self.device)
        pattern = torch.arange(size, device=self.device).remainder(251).to(torch.uint8)
        moved = Moment(self.device)
        rounds = range(ROUNDS if size < FEW_FROM else FEW_ROUNDS)
        act = self._send if self._rank == 0 else self._receive
        return round(1e6 * statistics.median(act(memory, pattern, moved, number) for number in rounds), 1)

    def _send(self, memory: torch.Tensor, pattern: torch.Tensor, moved: Moment, number: int) -> float:
        memory.copy_(pattern + number)
        moved.mark()
        assert moved.wait(TRANSFER_S), "the device does not come to the transfer"
        started = time.perf_counter()
        self._pipe.send(number)
        self._group.send([memory], 1, 0).wait()
        self._end(moved, memory)
        seconds = time.perf_counter() - started
        assert told(self._pipe, TRANSFER_S) == number
        return seconds

    def _receive(self, memory: torch.Tensor, pattern: torch.Tensor, moved: Moment, number: int) -> float:
        assert told(self._pipe, TRANSFER_S) == number
        started = time.perf_counter()
        self._group.recv([memory], 0, 0).wait()
        self._end(moved, memory)
        seconds = time.perf_counter() - started
        assert torch.equal(memory, pattern + number), f"{len(memory)} bytes, message {number}: wrong contents"
        self._pipe.send(number)
        return seconds

    @staticmethod
    def _end(moved: Moment, memory: torch.Tensor) -> None:
        moved.mark()
        assert moved.wait(TRANSFER_S), f"{len(memory)} bytes did not come in {TRANSFER_S:g} s"

    def abort(self) -> dict[str, Any]:
        """Both ends, nothing on its way."""
        started = time.monotonic()
        self._group.abort()
        return {"abort_s": round(time.monotonic() - started, 4)}
