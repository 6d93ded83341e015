"""Step 4: memory and events of one process in another on one GPU (CUDA IPC): contents, order, speed, and a writer that dies.

Rank 1 owns the memory, rank 0 writes it. Words on the pipe say what has been put on the device, in that order; the events
say when the device has come there.
"""

import os
import signal
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from tests.gpu.facts import Facts, Setting
from tests.gpu.nccl import own_device
from tests.gpu.two import run_two, told

SIZES = (64, 2**16, 2**20, 2**23, 2**25)
ROUNDS = 20
LEAST_LATE = 50
LATE_CYCLES = 1_000_000
ANSWER_S, LIMIT_S = 10.0, 45.0


def run(found: Facts, setting: Setting) -> None:
    codes = run_two(end, found, setting, LIMIT_S)
    found.put("exit codes", codes == [-signal.SIGKILL, 0], codes=codes)


def end(found: Facts, setting: Setting, rank: int, pipe: Connection) -> None:
    side = Side(rank, pipe, own_device(setting))
    ok = found.attempt(f"rank {rank}: connect", side.connect) and found.attempt(f"rank {rank}: transfers", side.transfers)
    if ok and rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if ok:
        found.attempt("writer is killed", side.notice_death)


class Event:
    """An event of this process that the other one may wait for, or the other way round; on the CPU everything is reached."""

    def __init__(self, device: torch.device, handle: bytes | None = None) -> None:
        self._event: Any = None
        if device.type == "cuda":
            kind = torch.cuda.Event
            self._event = kind(interprocess=True) if handle is None else kind.from_ipc_handle(device, handle)

    @property
    def handle(self) -> bytes:
        return self._event.ipc_handle() if self._event else b"none"

    def record(self) -> None:
        if self._event:
            self._event.record()

    def hold(self) -> None:
        """What the current stream does next waits for it."""
        if self._event:
            torch.cuda.current_stream().wait_event(self._event)

    def is_reached(self) -> bool:
        return self._event is None or self._event.query()


class Side:
    """One of the two processes."""

    def __init__(self, rank: int, pipe: Connection, device: torch.device) -> None:
        self._rank, self._pipe, self._device = rank, pipe, device
        self._memory: Tensor
        self._filled: Event
        self._used: Event

    def connect(self) -> dict[str, Any]:
        """Shares the memory and an event each way."""
        from torch.multiprocessing.reductions import reduce_tensor

        mine = Event(self._device)
        if self._rank == 1:
            self._memory = torch.zeros(SIZES[-1], dtype=torch.uint8, device=self._device)
            if self._device.type == "cpu":
                self._memory.share_memory_()
            else:
                torch.cuda.synchronize()
            self._pipe.send((reduce_tensor(self._memory), mine.handle))
            self._filled, self._used = Event(self._device, told(self._pipe, ANSWER_S)), mine
        else:
            (rebuild, arguments), handle = told(self._pipe, ANSWER_S)
            self._memory = rebuild(*arguments)
            self._pipe.send(mine.handle)
            self._filled, self._used = mine, Event(self._device, handle)
        return {"device": str(self._memory.device)}

    def transfers(self) -> dict[str, Any]:
        """All sizes, in turns."""
        act = self._write if self._rank == 0 else self._read
        medians, late = {}, 0
        for size in SIZES:
            source = torch.zeros(size, dtype=torch.uint8, device=self._device)
            found = [act(self._memory[:size], source, number) for number in range(ROUNDS)]
            medians[str(size)] = round(1e6 * statistics.median(seconds for seconds, _ in found), 1)
            late += sum(was_late for _, was_late in found)
        total = ROUNDS * len(SIZES)
        if self._rank == 1 and self._device.type == "cuda":
            assert late > LEAST_LATE, f"only {late} of {total} events were late: they are not those of the other process"
        return {"median_us": medians, "late": late, "of": total}

    def _write(self, part: Tensor, source: Tensor, number: int) -> tuple[float, bool]:
        """Seconds that the host took to put a message on the device."""
        started = time.perf_counter()
        self._used.hold()
        if self._device.type == "cuda":
            torch.cuda._sleep(LATE_CYCLES)  # so that the copy is late for certain
        source.fill_(number + 1)
        part.copy_(source, non_blocking=True)
        self._filled.record()
        self._pipe.send(number)
        seconds = time.perf_counter() - started
        assert told(self._pipe, ANSWER_S) == number
        return seconds, False

    def _read(self, part: Tensor, source: Tensor, number: int) -> tuple[float, bool]:
        """Seconds from the word to numbers that have been looked at; whether the event was still to come."""
        assert told(self._pipe, ANSWER_S) == number
        started, late = time.perf_counter(), not self._filled.is_reached()
        deadline = started + ANSWER_S
        while not self._filled.is_reached():
            assert time.perf_counter() < deadline, "the other process's event is never reached"
        self._filled.hold()
        assert bool((part == number + 1).all()), f"{len(part)} bytes, message {number}: wrong contents"
        seconds = time.perf_counter() - started
        self._used.record()
        self._pipe.send(number)
        return seconds, late

    def notice_death(self) -> dict[str, Any]:
        """The pipe tells; memory and device go on."""
        started = time.monotonic()
        try:
            told(self._pipe, ANSWER_S)
            raise AssertionError("a process that was killed has sent something")
        except (EOFError, ConnectionResetError):
            seconds = time.monotonic() - started
        numbers = torch.ones(1 << 10, device=self._device)
        assert float(numbers.sum()) == 1 << 10, "the device does not work any more"
        return {"noticed_s": round(seconds, 4), "event_reached": self._filled.is_reached()}
