"""What pages say of code that only a GPU runs: where and when `make gpu` has run it, or that nobody has yet.

`make gpu` leaves a file per run in benchmarks/results/gpu; of every fact the newest one counts.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.book import result
from benchmarks.book.markdown import table

NOT_YET = "not yet run on a GPU"
Fact = tuple[str, str]
"""A step of tests/gpu/steps, and what it has found out there."""


@dataclass(frozen=True)
class CudaPath:
    """A part of the code that only a GPU runs.

    Attributes:
        name: For readers.
        facts: What must have come out well; () where `make gpu`, which has one GPU, cannot show it.
    """

    name: str
    facts: tuple[Fact, ...] = ()


PATHS = (
    CudaPath(
        "stages on a GPU, links over gloo",
        (("equivalence", "gloo, 2 processes"), ("equivalence", "gloo, 4 processes")),
    ),
    CudaPath("no step of a block waits for the device", (("sync", "cross_entropy: no wait"), ("sync", "overlap: no wait"))),
    CudaPath(
        "samples that travel as bytes, with the CPU's bits",
        (("sync", "bytes have the CPU's bits"), ("sync", "batches of bytes")),
    ),
    CudaPath("spans of a trace by the GPU's clock", (("events", "spans of a trace"),)),
    CudaPath("bf16", (("equivalence", "bf16, 2 processes"), ("sync", "dropout, bf16: no wait"))),
    CudaPath(
        "links between processes that share a GPU (ipc)",
        (
            ("mapped", "rank 1: transfers"),
            ("links", "conformance"),
            ("links", "ipc, rank 1"),
            ("equivalence", "ipc, 2 processes"),
            ("equivalence", "ipc, 4 processes"),
        ),
    ),
    CudaPath(
        "NCCL between two processes of one GPU, over the loopback's sockets",
        (
            ("nccl_alone", "abort"),
            ("nccl_pair", "rank 1: transfers"),
            ("nccl_lost", "peer is killed"),
            ("links", "conformance"),
            ("links", "nccl, rank 1"),
        ),
    ),
    CudaPath("links over NCCL between GPUs"),
    CudaPath("replicas of a stage, over NCCL between GPUs"),
    CudaPath(
        "CUDA graphs (`training.graphs=on`)",
        (("graphs", "graphs equal eager"), ("equivalence", "graphs, the reference"), ("equivalence", "graphs, 2 processes")),
    ),
    CudaPath("checkpoints, and runs that go on from one", (("resume", "resumed equals uninterrupted"),)),
    CudaPath("the loss of a stage", (("kill", "all ended, cause named"),)),
    CudaPath("accuracy of a short training, as on the CPU", (("accuracy", "as accurate as on the CPU"),)),
    CudaPath("`training.compile=inductor` on a GPU"),
)


@dataclass(frozen=True)
class State:
    """How a path stands.

    Attributes:
        run: The file of the run that has shown it; of several, the oldest; None: it has not been run.
        failed: Facts that came out badly, as "step: fact".
    """

    run: Mapping[str, Any] | None = None
    failed: tuple[str, ...] = ()

    @property
    def is_shown(self) -> bool:
        """Whether all of it has been run, and well."""
        return self.run is not None and not self.failed

    def __str__(self) -> str:
        if self.run is None:
            return NOT_YET
        where = f"on {conditions(self.run)}"
        return f"**failed** {where}: {', '.join(self.failed)}" if self.failed else f"run {where}"


def read() -> list[Mapping[str, Any]]:
    """The files of all runs, the newest first; none before `make gpu` has run."""
    paths = sorted((result.FOLDER / "gpu").glob("gpu-*.json"), reverse=True)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def state_of(path: CudaPath, runs: Sequence[Mapping[str, Any]]) -> State:
    """How a path stands after these runs, the newest first."""
    newest = [next(_occurrences(fact, runs), None) for fact in path.facts]
    failed = tuple(f"{step}: {name}" for (step, name), one in zip(path.facts, newest, strict=True) if one and not one[1])
    found = [one[0] for one in newest if one]
    if not found or (None in newest and not failed):
        return State()
    return State(min(found, key=lambda run: str(run["when"])), failed)


def _occurrences(fact: Fact, runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    step, name = fact
    return ((run, run["steps"][step][name]) for run in runs if name in run["steps"].get(step, {}))


def conditions(run: Mapping[str, Any]) -> str:
    """The GPU, the day and the versions of a run."""
    versions = {name: str(version).partition("+")[0] for name, version in run["versions"].items()}
    told = [f"{name} {versions[name]}" for name in ("torch", "CUDA", "cuDNN", "NCCL") if name in versions]
    return ", ".join([run["gpu"], run["when"], *told])


def paths_table() -> str:
    """A row for every path."""
    runs = read()
    return table(("what", "state"), [(path.name, str(state_of(path, runs))) for path in PATHS])


def figures() -> str:
    """The rows that the newest run with any has left, a table for each kind."""
    run = next((run for run in read() if run["rows"]), None)
    if run is None:
        return f"None: {NOT_YET}."
    tables = [f"{name}:\n\n{_rows(rows)}" for name, rows in run["rows"].items()]
    return "\n\n".join([f"On {conditions(run)}.", *tables])


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [["" if row.get(column) is None else str(row[column]) for column in columns] for row in rows]
    return table([column.replace("_", " ") for column in columns], cells)


def in_short() -> str:
    """How many of the paths have been run, for README.md."""
    runs = read()
    states = [state_of(path, runs) for path in PATHS]
    shown, failed = (sum(map(bool, one)) for one in ([s.is_shown for s in states], [s.failed for s in states]))
    if not shown and not failed:
        return f"none of the {len(PATHS)} paths that only a GPU runs has been run on one yet"
    gpus = " and ".join(sorted({state.run["gpu"] for state in states if state.run}))
    failures = f", and {failed} failed there" if failed else ""
    return f"{shown} of the {len(PATHS)} paths that only a GPU runs have been run on {gpus}{failures}"
