"""What a link carries: bytes per second and latency of every transport, 4 KiB to 32 MiB, and the price of encodings.

    python -m benchmarks.links [--repeats 5] [--out benchmarks/results/links] [--smoke]

Two processes of one thread each on this host; the sender sends as fast as it can (throughput) or one message at a time
(latency, sender's call to receiver's return, on the host's one monotonic clock). Throughput is measured twice: as a
message becomes readable at the receiver, and with a receiver that also reads every byte (a sum). Every repeat measures
all transports at all sizes once, in turn; figures are medians over the repeats, with the range.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.distributed import FileStore

from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.pipeline.batch import TensorSpec
from greedypipe.workers.links.connect import LinkEnd
from greedypipe.workers.links.interface import LinkConfig, Receiver, Sender
from greedypipe.workers.links.messages import Kind, Message, MessageLayout
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.telemetry.machine import hardware, versions

ROWS, CHANNELS = 16, 64
SHAPES = {
    "4 KiB": (1, 1),
    "64 KiB": (4, 4),
    "256 KiB": (8, 8),
    "1 MiB": (16, 16),
    "2 MiB": (16, 32),
    "4 MiB": (32, 32),
    "8 MiB": (32, 64),
    "32 MiB": (64, 128),
}
"""Height and width of fp32 maps [16, 64, height, width] of these sizes."""
TRANSPORTS = ("shm", "gloo")
SLOTS = 8
BYTES_PER_MEASUREMENT = 512 << 20
MOST_MESSAGES = 4000
LATENCY_MESSAGES = 50
PAUSE_S = 0.001
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Case:
    """One link under test."""

    transport: str
    encoding: str
    size: str

    @property
    def layout(self) -> MessageLayout:
        """Its only message."""
        spec = TensorSpec("activation", (CHANNELS, *SHAPES[self.size]), torch.float32, True)
        return MessageLayout(ROWS, {Kind.TRAIN: (spec,)}, {spec.name: self.encoding})

    @property
    def payload_bytes(self) -> int:
        """Of a message before it is encoded."""
        height, width = SHAPES[self.size]
        return ROWS * CHANNELS * height * width * torch.float32.itemsize


@dataclass(frozen=True)
class Measurement:
    """One repeat of one case. Rates count the payload's bytes, before encoding; 1 GB is 1e9 bytes."""

    case: Case
    payload_bytes: int
    messages: int
    gb_per_s: float
    gb_per_s_read: float
    latency_us: float
    send_call_us: float


def measure(case: Case, messages: int) -> Measurement:
    """Starts both ends in fresh processes and measures once."""
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe() for _ in range(2)]
        processes = [
            context.Process(target=role, args=(case, messages, str(Path(folder) / "store"), pipe[1]))
            for role, pipe in zip((_send, _receive), pipes, strict=True)
        ]
        for process in processes:
            process.start()
        answers = [_answer(pipe[0]) for pipe in pipes]
        for process in processes:
            process.join()
    (send_call_us,), (plain_s, read_s, latency_us) = answers
    size = case.payload_bytes
    return Measurement(
        case,
        size,
        messages,
        size * messages / plain_s / 1e9,
        size * messages / read_s / 1e9,
        latency_us,
        send_call_us,
    )


def _answer(pipe: Connection) -> Any:
    if not pipe.poll(2 * TIMEOUT_S):
        raise TimeoutError(f"waited {2 * TIMEOUT_S:g} s for an end of the link")
    return pipe.recv()


def _end(case: Case, store: str, peer: str) -> LinkEnd:
    torch.set_num_threads(1)
    return LinkEnd(
        LinkConfig(transport=case.transport, slots=2),
        FileStore(store, 2),
        "link0",
        case.layout,  # type: ignore[arg-type]
        device=torch.device("cpu"),
        patience=Patience(peer, TIMEOUT_S),
    )


def _send(case: Case, messages: int, store: str, pipe: Connection) -> None:
    sender = _end(case, store, "the receiver").send()
    shape = (ROWS, CHANNELS, *SHAPES[case.size])
    x = torch.rand(shape).contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        _send_many(sender, x, messages)
    for _ in range(LATENCY_MESSAGES):
        time.sleep(PAUSE_S + case.payload_bytes / 1e9)  # until the one before has been taken for certain
        sender.send(Message(Kind.TRAIN, time.perf_counter_ns(), 0, {"activation": x}))
    sender.close()
    pipe.send((1e6 * sender.stats.send_s / sender.stats.messages,))


def _send_many(sender: Sender, x: torch.Tensor, messages: int) -> None:
    for number in range(messages + SLOTS):  # the first ones fill the slots: page faults, caches, first wake-ups
        sender.send(Message(Kind.TRAIN, number, 0, {"activation": x}))


def _receive(case: Case, messages: int, store: str, pipe: Connection) -> None:
    receiver = _end(case, store, "the sender").receive(SLOTS - 2)
    cpu = torch.device("cpu")
    seconds = [_receive_many(receiver, messages, cpu, reads) for reads in (False, True)]
    delays = []
    for _ in range(LATENCY_MESSAGES):
        received = receiver.receive()
        received.message.to(cpu)
        delays.append(time.perf_counter_ns() - received.message.batch_id)
        received.release()
    receiver.close()
    pipe.send((*seconds, statistics.median(delays) / 1e3))


def _receive_many(receiver: Receiver, messages: int, cpu: torch.device, reads: bool) -> float:
    """Seconds for `messages` messages, decoded; `reads` sums up every one as well."""
    for number in range(messages + SLOTS):
        if number == SLOTS:
            started = time.perf_counter()
        received = receiver.receive()
        x = received.message.to(cpu).tensors["activation"]
        if reads:
            x.sum()
        received.release()
    return time.perf_counter() - started


def summarise(measurements: list[Measurement]) -> list[dict[str, Any]]:
    """Per case the median over the repeats with the range."""
    groups: dict[Case, list[Measurement]] = defaultdict(list)
    for one in measurements:
        groups[one.case].append(one)
    rows = []
    for case, group in groups.items():
        row: dict[str, Any] = asdict(case) | {"repeats": len(group)}
        for key in ("gb_per_s", "gb_per_s_read", "latency_us", "send_call_us"):
            values = [getattr(one, key) for one in group]
            row[key] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        rows.append(row)
    return rows


def ratios(measurements: list[Measurement]) -> dict[str, dict[str, dict[str, float]]]:
    """Throughput of shm over gloo at every size: per repeat, then the median and the range."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for key in ("gb_per_s", "gb_per_s_read"):
        found[key] = {}
        for size in SHAPES:
            shm, gloo = (
                [getattr(one, key) for one in measurements if one.case == Case(name, "same", size)] for name in TRANSPORTS
            )
            quotients = [left / right for left, right in zip(shm, gloo, strict=True)]
            if quotients:
                found[key][size] = {
                    "median": statistics.median(quotients),
                    "min": min(quotients),
                    "max": max(quotients),
                }
    return found


def table(rows: list[dict[str, Any]], found: dict[str, dict[str, dict[str, float]]]) -> Table:
    """One line per case."""
    result = Table("size", "transport", "link.dtype", "GB/s", "GB/s, read", "latency us", "send us", "shm/gloo", "read")
    for row in sorted(rows, key=lambda row: (list(SHAPES).index(row["size"]), row["encoding"] != "same")):
        cells = [row["size"], row["transport"], row["encoding"]]
        for key in ("gb_per_s", "gb_per_s_read"):
            cells.append(f"{row[key]['median']:.2f} ({row[key]['min']:.2f} .. {row[key]['max']:.2f})")
        cells += [f"{row['latency_us']['median']:,.0f}", f"{row['send_call_us']['median']:,.0f}"]
        if row["transport"] == "shm" and row["encoding"] == "same":
            cells += [f"{found[key][row['size']]['median']:.1f}" for key in ("gb_per_s", "gb_per_s_read")]
        result.add_row(*cells)
    return result


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Throughput and latency over the size, a line per transport, the range as a band."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    titles = {"gb_per_s_read": "throughput with a receiver that reads, GB/s", "latency_us": "latency, us"}
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for colour, transport in enumerate(TRANSPORTS):
            chosen = [row for row in rows if (row["transport"], row["encoding"]) == (transport, "same")]
            chosen.sort(key=lambda row: list(SHAPES).index(row["size"]))
            x = [row["size"] for row in chosen]
            axes.plot(x, [row[key]["median"] for row in chosen], f"C{colour}o-", label=transport)
            axes.fill_between(
                x, [row[key]["min"] for row in chosen], [row[key]["max"] for row in chosen], color=f"C{colour}", alpha=0.2
            )
        axes.set_yscale("log")
        axes.set_xlabel("payload of a message")
        axes.set_title(title)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where to write, without suffix: .json and .png")
    parser.add_argument("--smoke", action="store_true", help="two sizes, once, few messages")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    sizes = ["4 KiB", "1 MiB"] if arguments.smoke else list(SHAPES)
    cases = [Case(transport, "same", size) for size in sizes for transport in TRANSPORTS]
    cases += [
        Case("shm", encoding, size)
        for size in (sizes[-1:] if arguments.smoke else ("1 MiB", "8 MiB"))
        for encoding in ("bf16", "int8")
    ]
    measurements = []
    for _ in range(1 if arguments.smoke else arguments.repeats):
        for case in cases:
            most = 20 if arguments.smoke else MOST_MESSAGES
            measurements.append(measure(case, max(8, min(most, BYTES_PER_MEASUREMENT // case.payload_bytes))))
    rows, found = summarise(measurements), ratios(measurements)
    Console(width=130).print(table(rows, found))
    if arguments.out:
        results = {
            "command": " ".join(["python -m benchmarks.links", *sys.argv[1:]]),
            "hardware": hardware(),
            "versions": versions(),
            "rows": rows,
            "shm_over_gloo": found,
            "measurements": [asdict(one) for one in measurements],
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        plot(rows, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
