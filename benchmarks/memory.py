"""Peak memory of every process over the depth of the network: back-propagation, 1F1B, and decoupled stages.

    python -m benchmarks.memory [section.key=value ...] --out benchmarks/results/memory [--repeats 3] [--smoke]

Back-propagation is one process, the others have four; all train a few steps of the same network at the same batch size.
A process's peak is the most resident memory that it has had (VmHWM), less that of a process that has only imported what
they all import, so that what is compared is what training takes: parameters, gradients, optimizer, activations, data
and slots. The slots of decoupled stages are told apart: bytes allocated by that stage. They lie in memory that the
sender maps as well, so that a sender's peak counts the pages of the next stage's slots too. Medians with the range.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.engines.idle import idle_bytes
from benchmarks.engines.one_f_one_b import train_one_f_one_b
from benchmarks.engines.timing import spread
from greedypipe.launch.on_host.fork_server import FORKSERVER_PRELOAD
from greedypipe.launch.on_host.local_run import run_pipeline
from greedypipe.workers.telemetry.machine import hardware, versions

STAGES = 4
NETWORKS = ("resnet20", "resnet56", "resnet110")
DEFAULTS = (
    "data.name=synthetic",
    "data.shape=[3,32,32]",
    "data.classes=10",
    "data.samples=640",
    "data.batch_size=128",
    "data.drop_last=true",
    "head.name=mlp_sr",
    "training.epochs=1",
    "optimizer.lr=0.1",
)
ENGINES = ("BP", "1F1B", "FIFO")
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Peak:
    """One run: peak bytes above the baseline of every process, and of which how many are slots of its own."""

    engine: str
    network: str
    process_bytes: list[int]
    slot_bytes: list[int]


def measure(engine: str, network: str, overrides: Sequence[str], baseline: int) -> Peak:
    """Trains a few steps in fresh processes."""
    settings = [*DEFAULTS, f"model.name={network}", *overrides]
    if engine == "1F1B":
        trained = train_one_f_one_b([*settings, f"partition.blocks={STAGES}"], STAGES, warmup_steps=1, timeout_s=TIMEOUT_S)
        return Peak(engine, network, [peak - baseline for peak in trained.peak_memory_bytes], [0] * STAGES)
    processes = 1 if engine == "BP" else STAGES
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_pipeline([*settings, f"partition.blocks={processes}"], processes, Path(folder) / "run", TIMEOUT_S)
        if any(outcome.exit_codes):
            raise RuntimeError(f"{engine} {network} failed:\n" + "\n".join(outcome.printed))
        stages = outcome.summary["stages"]
    peaks = [stage["peak_memory_bytes"] - baseline for stage in stages]
    return Peak(engine, network, peaks, [stage["slot_bytes"] for stage in stages])


def summarise(peaks: Sequence[Peak]) -> list[dict[str, Any]]:
    """Per engine and network medians over the repeats; `largest_over_bp` compares within a repeat."""
    groups: dict[tuple[str, str], list[Peak]] = {}
    for peak in peaks:
        groups.setdefault((peak.engine, peak.network), []).append(peak)
    rows = []
    for (engine, network), group in groups.items():
        largest = [max(peak.process_bytes) for peak in group]
        base = [max(peak.process_bytes) for peak in groups["BP", network]]
        rows.append(
            {
                "engine": engine,
                "network": network,
                "repeats": len(group),
                "process_bytes": [
                    statistics.median(values) for values in zip(*(p.process_bytes for p in group), strict=True)
                ],
                "slot_bytes": group[0].slot_bytes,
                "largest_bytes": spread(largest),
                "largest_over_bp": spread([one / other for one, other in zip(largest, base, strict=True)]),
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line per engine and network."""
    result = Table("network", "engine", "peak MB per process", "slots MB", "largest / BP's")
    for row in rows:
        ratio = row["largest_over_bp"]
        result.add_row(
            row["network"],
            row["engine"],
            "  ".join(f"{size / 1e6:,.0f}" for size in row["process_bytes"]),
            "  ".join(f"{size / 1e6:,.0f}" for size in row["slot_bytes"]) if any(row["slot_bytes"]) else "",
            f"{ratio['median']:.2f} ({ratio['min']:.2f} .. {ratio['max']:.2f})",
            end_section=row["engine"] == ENGINES[-1],
        )
    return result


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A group of bars per network, a bar per process; the part that is slots is hatched."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 4.8), layout="constrained")
    networks = list(dict.fromkeys(row["network"] for row in rows))
    for colour, engine in enumerate(ENGINES):
        for group, network in enumerate(networks):
            row = next(row for row in rows if (row["engine"], row["network"]) == (engine, network))
            first = {"BP": 0, "1F1B": 1.5, "FIFO": 2.0 + STAGES}[engine]
            for stage, (size, slots) in enumerate(zip(row["process_bytes"], row["slot_bytes"], strict=True)):
                x = group * (4 + 2 * STAGES) + first + stage
                label = engine if group == stage == 0 else None
                axes.bar(x, size / 1e6, 0.85, color=f"C{colour}", label=label)
                axes.bar(
                    x,
                    slots / 1e6,
                    0.85,
                    color="none",
                    edgecolor="white",
                    hatch="////",
                    label="of which slots" if label and engine == "FIFO" else None,
                )
    axes.set_xticks([group * (4 + 2 * STAGES) + 1 + STAGES for group in range(len(networks))], networks)
    axes.set_ylabel("peak above an idle process, MB")
    axes.set_title(f"peak memory: BP in one process, 1F1B and FIFO with a bar per stage ({STAGES})")
    axes.legend(facecolor="lightgrey")
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write, without suffix: .json and .png")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one shallow, narrow network, once")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    multiprocessing.set_forkserver_preload(FORKSERVER_PRELOAD)
    networks, overrides, repeats = NETWORKS, arguments.overrides, arguments.repeats
    if arguments.smoke:
        networks, repeats, overrides = ("resnet20",), 1, ["model.width=0.5", "data.batch_size=32", "data.samples=96"]
    jobs = [(network, engine) for _ in range(repeats) for network in networks for engine in ENGINES]
    baseline = idle_bytes()
    peaks = [
        measure(engine, network, overrides, baseline)
        for network, engine in track(jobs, "runs", console=Console(stderr=True))
    ]
    rows = summarise(peaks)
    Console(width=140).print(table(rows))
    answer = {
        "command": "python -m benchmarks.memory " + " ".join(sys.argv[1:]),
        "settings": [*DEFAULTS, *overrides],
        "hardware": hardware(),
        "versions": versions(),
        "baseline_bytes": baseline,
        "rows": rows,
        "runs": [asdict(peak) for peak in peaks],
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    plot(rows, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
