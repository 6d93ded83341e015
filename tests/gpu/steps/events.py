"""Step 1: what links and meters take for granted of streams, events and calls that must not wait for the device."""

import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch

from greedypipe.workers.around.trace import make_tracing
from greedypipe.workers.devices.clock import cuda_event
from greedypipe.workers.devices.side import CudaSide
from greedypipe.workers.devices.spans import DeviceSpans
from greedypipe.workers.inbox import Delivery
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.telemetry.meter import LoggingConfig
from tests.gpu.facts import Facts, Setting

ROUNDS, LEAST_LATE = 50, 40
SHORT_CYCLES, LONG_CYCLES = 2_000_000, 100_000_000
"""About 1 and 50 ms."""
NOTICEABLE_S = 0.01
TRACED = 3
"""Batches, each of two sleeping kernels."""
ON_THE_HOT_PATH = ("to it, pinned", "from it, pinned", "seed", "clip", "fill a rate", "keep a loss")
"""What a step calls: none of it may wait."""


def run(found: Facts, setting: Setting) -> None:
    if setting.pretend:
        return
    torch.cuda.set_device(0)
    torch.cuda.init()
    work = torch.cuda.Stream(0)
    found.attempt("another thread's stream", partial(_another_threads_stream, work))
    found.attempt("order between streams", partial(_order, work))
    found.attempt("hidden waits", _hidden_waits)
    found.attempt("spans of a trace", partial(_spans, work))


def _another_threads_stream(work: torch.cuda.Stream) -> None:
    told: list[bool] = []
    with torch.cuda.stream(work):
        thread = threading.Thread(target=lambda: told.append(torch.cuda.current_stream() == torch.cuda.default_stream()))
        thread.start()
        thread.join()
    assert told == [True], "another thread inherits the stream"


def _order(work: torch.cuda.Stream) -> dict[str, Any]:
    """One stream waits for another by an event, and the event is late for certain."""
    lane, x = torch.cuda.Stream(0, -1), torch.zeros(1 << 20, device="cuda")
    seen, filled, late = torch.empty_like(x), torch.cuda.Event(), 0
    torch.cuda.synchronize()
    for number in range(ROUNDS):
        with torch.cuda.stream(work):
            torch.cuda._sleep(SHORT_CYCLES)
            x.fill_(number + 1)
            filled.record()
        late += not filled.query()
        with torch.cuda.stream(lane):
            lane.wait_event(filled)
            seen.copy_(x)
        lane.synchronize()
        assert bool((seen == number + 1).all()), f"round {number}: the copy came before what it copies"
    assert late > LEAST_LATE, f"{ROUNDS - late} of {ROUNDS} events were reached at once"
    return {"late": late}


def _hidden_waits() -> dict[str, Any]:
    """Which calls wait while a kernel sleeps."""
    waits = {}
    for name, call in _calls().items():
        torch.cuda.synchronize()
        torch.cuda._sleep(LONG_CYCLES)
        started = time.perf_counter()
        call()
        waits[name] = time.perf_counter() - started > NOTICEABLE_S
        torch.cuda.synchronize()
    assert waits["read a number"], "nothing waits: the kernel was too short to tell"
    assert not any(waits[name] for name in ON_THE_HOT_PATH), waits
    return {"waits": waits}


def _calls() -> dict[str, Callable[[], object]]:
    x, pinned, pageable = torch.ones(1024, device="cuda"), torch.ones(1024, pin_memory=True), torch.ones(1024)
    parameter = torch.nn.Parameter(torch.ones(8, device="cuda"))
    parameter.grad = torch.ones_like(parameter)
    rate, losses, loss = torch.zeros((), device="cuda"), torch.zeros(4, device="cuda"), torch.ones((), device="cuda")
    calls: dict[str, Callable[[], object]] = {
        "to it, pinned": lambda: x.copy_(pinned, non_blocking=True),
        "from it, pinned": lambda: pinned.copy_(x, non_blocking=True),
        "to it, pageable": lambda: x.copy_(pageable, non_blocking=True),
        "from it, pageable": lambda: pageable.copy_(x, non_blocking=True),
        "from it, pinned, blocking": lambda: pinned.copy_(x),
        "seed": lambda: torch.cuda.default_generators[0].manual_seed(3),
        "clip": lambda: torch.nn.utils.clip_grad_norm_([parameter], 1.0, foreach=True),
        "fill a rate": lambda: rate.fill_(0.1),
        "keep a loss": lambda: losses.__setitem__(1, loss),
        "read a number": loss.item,
    }
    for call in calls.values():  # what is loaded at its first call may wait then
        call()
    return calls


class _Sleeping:
    """A block whose work sleeps on the device."""

    finished, index = False, 0

    def forward(self, x: Any, batch: Any) -> None:
        torch.cuda._sleep(LONG_CYCLES)

    def learn(self, feedback: Any, *, drains: bool = False) -> Any:
        torch.cuda._sleep(LONG_CYCLES)
        return SimpleNamespace(loss=0.0)


def _spans(work: torch.cuda.Stream) -> dict[str, Any]:
    """A span is as long as the sleeping kernel that it holds, though the host is done at once."""
    device = torch.device("cuda", 0)
    tracing = make_tracing(
        LoggingConfig(trace_batches=TRACED, trace_start=0),
        1,
        1,
        lambda recorder: DeviceSpans(recorder, CudaSide(device), cuda_event),
    )
    (block,) = tracing.blocks([_Sleeping()])  # type: ignore[list-item]
    with torch.cuda.stream(work):
        torch.cuda._sleep(LONG_CYCLES)
        torch.cuda.synchronize()
        began = time.perf_counter()
        torch.cuda._sleep(LONG_CYCLES)
        torch.cuda.synchronize()
        started = time.perf_counter()
        kernel_s = started - began
        for _ in tracing.inbox([Delivery(Message(Kind.TRAIN, number), 0, 1) for number in range(TRACED)]):  # type: ignore[arg-type]
            block.forward(None, None)  # type: ignore[arg-type]
            block.learn()
        launched_s = time.perf_counter() - started
        spans = tracing.spans()
        ended = time.perf_counter()
    assert spans is not None
    assert launched_s < kernel_s, f"a step waited: {launched_s} s for what takes the device {2 * TRACED * kernel_s} s"
    rows = [row for row in zip(spans.start_s, spans.end_s, spans.kind, strict=True) if not row[2].startswith("wait")]
    lengths_s = [end - start for start, end, _ in rows]
    assert [kind for *_, kind in rows] == ["forward", "learn"] * TRACED, spans.kind
    assert all(0.8 * kernel_s < length < 1.25 * kernel_s for length in lengths_s), (kernel_s, lengths_s)
    times = [started, *(moment for start, end, _ in rows for moment in (start, end)), ended]
    assert all(later > earlier - NOTICEABLE_S / 10 for earlier, later in pairwise(times)), times
    return {"kernel_s": kernel_s, "launched_s": launched_s, "lengths_s": lengths_s, "late_s": rows[0][0] - started}
