"""Step 3: torch's NCCL group with one rank: that it connects, computes, makes no host wait, and can be aborted."""

import time
from functools import partial
from typing import Any

import torch

from tests.gpu.facts import Facts, Setting
from tests.gpu.nccl import Moment, free_mib, fresh_file, make_group, own_device, set_environment, tell_logs, within

NUMBERS = 1 << 20
SLEEP_CYCLES = 100_000_000
CONNECT_S = 25.0


def run(found: Facts, setting: Setting) -> None:
    set_environment(setting.scratch, 0, apart=False)
    device = own_device(setting)
    kept: dict[str, Any] = {}
    if not found.attempt("connect", partial(_connect, setting, device, kept)):
        tell_logs(setting.scratch, 0)
        return
    found.attempt("sum over itself", partial(_sum, kept["group"], device))
    if device.type == "cuda":
        found.attempt("the host does not wait", partial(_no_wait, kept["group"], device))
        found.attempt("abort", partial(_abort, kept["group"], device))


def _connect(setting: Setting, device: torch.device, kept: dict[str, Any]) -> dict[str, Any]:
    torch.zeros(1, device=device)
    before = free_mib(device)
    make = partial(make_group, fresh_file(setting.scratch, "nccl_alone"), 0, 1, device)
    kept["group"] = within(CONNECT_S, "a group of one", make, device)
    return {"used_mib": before - free_mib(device)}


def _sum(group: Any, device: torch.device) -> dict[str, Any]:
    x = torch.arange(NUMBERS, device=device, dtype=torch.float32)
    before, moved = free_mib(device), Moment(device)
    group.allreduce([x]).wait()
    moved.mark()
    assert moved.wait(10), "the sum was not done in 10 s"
    assert torch.equal(x.cpu(), torch.arange(NUMBERS, dtype=torch.float32)), "wrong numbers"
    return {"used_mib": before - free_mib(device)}


def _no_wait(group: Any, device: torch.device) -> dict[str, Any]:
    """`wait` of what was started makes the stream wait, and not the host."""
    x = torch.ones(NUMBERS, device=device)
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP_CYCLES)
    started = time.perf_counter()
    group.allreduce([x]).wait()
    called_s = time.perf_counter() - started
    torch.cuda.synchronize()
    waited_s = time.perf_counter() - started
    assert called_s < waited_s / 2, f"the call took {called_s:.4f} of {waited_s:.4f} s"
    return {"call_ms": round(1e3 * called_s, 3), "device_ms": round(1e3 * waited_s, 3)}


def _abort(group: Any, device: torch.device) -> dict[str, Any]:
    started = time.monotonic()
    group.abort()
    abort_s = time.monotonic() - started
    assert float(torch.ones(8, device=device).sum()) == 8, "the device does not work any more"
    return {"abort_s": round(abort_s, 4)}
