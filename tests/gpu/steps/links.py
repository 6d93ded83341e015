"""Step 7: the product's links on a GPU: their conformance suite in one process, then each transport between two processes.

NCCL takes the two processes for two hosts, and the loopback's sockets for the network between them (tests/gpu/nccl.py).
"""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.distributed import FileStore

from greedypipe.pipeline.batch import TensorSpec
from greedypipe.pipeline.execution.recorder import own_stream
from greedypipe.workers.links.device_link import DeviceLink
from greedypipe.workers.links.messages import Kind, Message, MessageLayout
from greedypipe.workers.links.patience import Patience
from tests.conformance.stand_ins import stand_in
from tests.gpu.facts import Facts, Setting
from tests.gpu.nccl import fresh_file, own_device, set_environment, tell_logs
from tests.gpu.two import run_two

SUITE = ("tests/conformance", "-m", "gpu")
SUITE_S, PAIR_S, CONNECT_S = 40.0, 30.0, 20.0
TRANSPORTS = ("ipc", "nccl")
ROWS, FEWER_ROWS, SLOTS, MESSAGES = 128, 50, 3, 40
LATE_CYCLES = 1_000_000
LAYOUT = MessageLayout(
    ROWS,
    {
        Kind.TRAIN: (
            TensorSpec("labels", (), torch.int64),
            TensorSpec("activation", (32, 16, 16), torch.float32, channels_last=True),
        )
    },
)


def run(found: Facts, setting: Setting) -> None:
    found.attempt("conformance", partial(_suite, setting))
    for transport in TRANSPORTS:
        fresh_file(setting.scratch, transport)
        codes = run_two(partial(_end, transport), found, setting, PAIR_S)
        found.put(f"{transport}: exit codes", codes == [0, 0], codes=codes)


def _suite(setting: Setting) -> dict[str, Any]:
    """The tests that are marked so; to pretend, they are only collected."""
    collect = ["--collect-only"] if setting.pretend else []
    command = [sys.executable, "-m", "pytest", "-vrs", "-p", "no:cacheprovider", *SUITE, *collect]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SUITE_S)
    print(done.stdout[-20_000:], done.stderr[-4_000:], flush=True)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stdout[-300:]}"
    counts = {
        what: int(number) for number, what in re.findall(r"(\d+) (passed|skipped|failed|tests collected)", done.stdout)
    }
    assert setting.pretend or counts.get("passed"), f"no test has been run: {counts}"
    return {"counts": counts}


def _end(transport: str, found: Facts, setting: Setting, rank: int, pipe: Connection) -> None:
    set_environment(setting.scratch, rank, apart=transport == "nccl")
    device = own_device(setting)
    if setting.pretend:
        stand_in(transport)
    store = FileStore(str(setting.scratch / f"{transport}.store"), 2)
    patience = Patience(f"stage {1 - rank}", CONNECT_S)
    link = DeviceLink(store, f"link over {transport}", LAYOUT, device, is_on_one_host=True, patience=patience)
    act: Callable[..., dict[str, Any]] = _receive if rank else partial(_send, found)
    with own_stream(device):
        ok = found.attempt(f"{transport}, rank {rank}", partial(act, link, transport, device))
    if not ok:
        tell_logs(setting.scratch, rank)


def _message(number: int, device: torch.device) -> Message:
    """Every seventh is a smaller batch."""
    rows = ROWS if number % 7 else FEWER_ROWS
    activation = torch.arange(rows * 32 * 16 * 16, device=device, dtype=torch.float32).add_(number).view(rows, 32, 16, 16)
    labels = torch.arange(rows, device=device).add_(number)
    tensors = {"labels": labels, "activation": activation.contiguous(memory_format=torch.channels_last)}
    return Message(Kind.TRAIN, number, number, tensors)


def _send(found: Facts, link: DeviceLink, transport: str, device: torch.device) -> dict[str, Any]:
    sender = link.paced_sender(transport, SLOTS) if transport == "nccl" else link.ipc_sender()
    started = time.perf_counter()
    for number in range(MESSAGES):
        if device.type == "cuda":
            torch.cuda._sleep(LATE_CYCLES)  # so that the message is not ready when it is sent
        sender.send(_message(number, device))
    sender.close()
    seconds, stats = time.perf_counter() - started, sender.stats
    found.row(
        "link",
        transport=transport if transport == "ipc" else "nccl over the loopback's sockets",
        bytes=LAYOUT.message_bytes(Kind.TRAIN, ROWS),
        send_us=round(1e6 * stats.send_s / MESSAGES, 1),
        messages_s=round(MESSAGES / seconds, 1),
        state="two processes share one GPU, time-sliced; the receiver looks at every number",
    )
    return {"seconds": round(seconds, 3)}


def _receive(link: DeviceLink, transport: str, device: torch.device) -> dict[str, Any]:
    receiver = link.paced_receiver(transport, SLOTS) if transport == "nccl" else link.ipc_receiver(SLOTS)
    for number in range(MESSAGES):
        message, release, lend, give_back = receiver.receive()
        assert lend and give_back
        lend()
        moved, expected = message.to(device), _message(number, device)
        assert message.batch_id == number and moved.tensors.keys() == expected.tensors.keys()
        for name, tensor in expected.tensors.items():
            assert torch.equal(moved.tensors[name], tensor), f"message {number}: wrong {name}"
        give_back()
        release()
    receiver.close()
    return {"messages": MESSAGES}
