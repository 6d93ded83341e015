"""Stages that have replicas, need memory, or are slow (benchmarks.replicas, .memory, .slowdown)."""

import statistics

from benchmarks.book.markdown import at_least, percent, setup, spread, table
from benchmarks.book.result import Answer, Result

SLOW_TARGET = 0.95


def _replicas(answer: Answer) -> str:
    rows = []
    for case, runs in answer["runs"].items():
        finals = [run["final"] for run in runs]
        mean, deviation = statistics.mean(finals), statistics.stdev(finals)
        rows.append((case, percent(mean, 2), f"{100 * deviation:.2f}", str(len(runs))))
    return f"""
VGG8b at a quarter of its width on digits; `[1,2,1]` is `placement.replicas`. Every stage trains on every sample once per
epoch.

{table(("processes per stage", "accuracy, mean", "standard deviation, points", "seeds"), rows)}

Batch normalisation sees a replica's rows only, as in DDP. Without it parameters differ by rounding alone, and one block with
replicas has the bits of torch's DistributedDataParallel (`tests/multiprocess/test_replicas.py`).
"""


def _memory(answer: Answer) -> str:
    found = {(row["engine"], row["network"]): row for row in answer["rows"]}
    rows = []
    for network in dict.fromkeys(row["network"] for row in answer["rows"]):
        plain, flushed, ours = (found[engine, network] for engine in ("BP", "1F1B", "FIFO"))
        sizes = [_megabytes(row["process_bytes"]) for row in (plain, flushed, ours)]
        rows.append((network, *sizes, _megabytes(ours["slot_bytes"]), spread(ours["largest_over_bp"], ".2f")))
    settings = [*answer["settings"], "model.name=CIFAR ResNets"]
    processes = len(found["FIFO", rows[0][0]]["process_bytes"])
    header = (
        "network",
        "back-propagation, 1 process",
        "1F1B, micro-batches, by stage",
        "FIFO, whole batches, by stage",
        "of which slots",
        "largest FIFO stage / back-propagation",
    )
    return f"""
Peak memory of each process in MB, above a process that has only imported torch. {setup(settings)}, and {processes}
processes with 1F1B and FIFO.

{table(header, rows)}

The cut is even in layers, and the first layers have the largest maps. A micro-batched pipeline holds parts of a batch; a
decoupled stage holds a whole one, and its slots. The pages of a shared-memory link count at both of its ends.
"""


def _megabytes(sizes: list[float]) -> str:
    return ", ".join(f"{size / 1e6:,.0f}" for size in sizes)


def _slowdown(answer: Answer) -> str:
    found = {(row["policy"], row["slow_stage"], row["factor"]): row for row in answer["rows"]}
    rows = []
    for policy in dict.fromkeys(row["policy"] for row in answer["rows"]):
        slowed = [found[policy, stage, 2.0] for stage in (0, 1)]
        ratios = [spread(row["others_over_unslowed"], ".2f") for row in slowed]
        least = min(row["others_over_unslowed"]["median"] for row in slowed)
        accuracy = [percent(row["accuracy"]["median"]) for row in (found[policy, -1, 1.0], *slowed)]
        rows.append((policy, *ratios, at_least(least, SLOW_TARGET) if "replay" in policy else "", *accuracy))
    header = (
        "coupling",
        "the other's throughput / unslowed, stage 0 slow",
        "stage 1 slow",
        "target",
        "accuracy, none slow",
        "stage 0 slow",
        "stage 1 slow",
    )
    return f"""
DGL's experiment: one of two stages takes twice its time for every batch (it sleeps). {setup(answer["settings"])}, on digits;
M is `buffers.capacity`.

{table(header, rows)}

With replay the other stage keeps its speed. The price is accuracy: behind a slow stage 0, stage 1 reads batches again
and spends its step budget on an upstream that has learned half as much. With `buffers.max_reuse=1` it waits instead. Other
factors are in the data and the plot.
"""


REPLICAS = Result(
    "replicas",
    "Replicas",
    lambda answer: f"n = {len(next(iter(answer['runs'].values())))} seeds",
    _replicas,
)
MEMORY = Result(
    "memory",
    "Peak memory over depth",
    lambda answer: f"n = {answer['rows'][0]['repeats']} repeats; medians",
    _memory,
)
SLOWDOWN = Result(
    "slowdown",
    "One slow stage",
    lambda answer: f"n = {answer['rows'][0]['seeds']} seeds; medians and ranges",
    _slowdown,
)
