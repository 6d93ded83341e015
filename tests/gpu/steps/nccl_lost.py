"""Step 6: a rank that never comes, and one that is killed while the other waits for its half of a transfer.

What is asked: does the wait end at our deadline, does the process end, does a transfer without its peer end by itself, does
other work of the device go on meanwhile, and does an abort free it.
"""

import os
import signal
import sys
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from tests.gpu.facts import Facts, Setting
from tests.gpu.nccl import Moment, fresh_file, make_group, own_device, set_environment, tell_logs, within
from tests.gpu.two import run_two, told

NEVER_S = 5.0
CONNECT_S, TRANSFER_S = 20.0, 10.0
PATIENCE_S = 3.0
NUMBERS = 1 << 20
BYTES = 2**23
"""More than NCCL's buffers take: the sender's kernel waits for the receiver."""


def run(found: Facts, setting: Setting) -> None:
    for end, name, codes_wanted in ((never_comes, "peer never comes", [0, 0]), (is_killed, "peer is killed", [0, -9])):
        if setting.pretend and end is is_killed:
            continue
        fresh_file(setting.scratch, "nccl_lost")
        started = time.monotonic()
        codes = run_two(end, found, setting, 25)
        seconds = round(time.monotonic() - started, 1)
        found.put(f"{name}: exit codes", codes == codes_wanted, codes=codes, seconds=seconds)


def never_comes(found: Facts, setting: Setting, rank: int, pipe: Connection) -> None:
    """Rank 1 goes before it connects."""
    if rank == 1:
        return
    set_environment(setting.scratch, rank, apart=True)
    device, seconds = own_device(setting), 0.5 if setting.pretend else NEVER_S
    torch.zeros(1, device=device)
    make = partial(make_group, setting.scratch / "nccl_lost.store", rank, 2, device)

    def waits_in_vain() -> dict[str, Any]:
        started = time.monotonic()
        try:
            within(seconds, "a rank that never comes", make, device)
        except TimeoutError:
            return {"noticed_s": round(time.monotonic() - started, 2)}
        raise AssertionError("it connected to nobody")

    found.attempt("peer never comes", waits_in_vain)


def is_killed(found: Facts, setting: Setting, rank: int, pipe: Connection) -> None:
    """Rank 1 is killed behind one whole transfer."""
    set_environment(setting.scratch, rank, apart=True)
    device = own_device(setting)
    torch.zeros(1, device=device)
    group = within(
        CONNECT_S, f"rank {1 - rank}", partial(make_group, setting.scratch / "nccl_lost.store", rank, 2, device), device
    )
    memory, moved = torch.zeros(BYTES, dtype=torch.uint8, device=device), Moment(device)
    x = torch.ones(NUMBERS, device=device)
    assert float((x + 1).sum()) == 2 * NUMBERS  # loads what is called below: loading may wait for the whole device
    torch.cuda.synchronize()
    if rank == 0:
        pipe.send("now")
        group.send([memory], 1, 0).wait()
    else:
        told(pipe, CONNECT_S)
        group.recv([memory], 0, 0).wait()
    moved.mark()
    assert moved.wait(TRANSFER_S), "the first transfer did not come"
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    found.attempt("peer is killed", partial(_goes_on_alone, found, group, memory, x))
    tell_logs(setting.scratch, rank)
    sys.stdout.flush()


def _goes_on_alone(found: Facts, group: Any, memory: torch.Tensor, x: torch.Tensor) -> dict[str, Any]:
    time.sleep(1)
    lane, moved = torch.cuda.Stream(memory.device, -1), Moment(memory.device)
    with torch.cuda.stream(lane):
        group.send([memory], 1, 0).wait()
        moved.mark()
    ended_by_itself = moved.wait(PATIENCE_S)
    said = group.get_error().name
    # Beside the kernel that waits, in the stream of the stage.
    began = time.monotonic()
    works_meanwhile = float((x + 1).sum()) == 2 * NUMBERS
    meanwhile_s = time.monotonic() - began
    started = time.monotonic()
    group.abort()
    abort_s = time.monotonic() - started
    reached = moved.wait(PATIENCE_S)
    found.row("failure", what="NCCL: abort of a transfer whose other end was killed", seconds=round(abort_s, 3))
    facts = {
        "ended_by_itself": ended_by_itself,
        "nccl_says": said,
        "works_meanwhile": works_meanwhile,
        "meanwhile_s": round(meanwhile_s, 3),
        "abort_s": round(abort_s, 3),
        "reached_after_abort": reached,
        "works_afterwards": float((x + 1).sum()) == 2 * NUMBERS,
    }
    assert facts["works_meanwhile"] and facts["reached_after_abort"] and facts["works_afterwards"], facts
    return facts
