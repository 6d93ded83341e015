"""What a run has left in its folder, as far as it got: the material of a report."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Span:
    """What a process did for a while; seconds since the trace began."""

    rank: int
    stage: int
    activity: str
    name: str
    start_s: float
    end_s: float
    batch_id: int


@dataclass(frozen=True)
class RunRecord:
    """A run's files, read; what is missing is empty.

    Attributes:
        labels: Of every process, by rank: its stage, and its replica where there are several.
        metrics: Records of every process's metrics file, by rank.
        trace: trace.json.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    evaluations: list[dict[str, Any]]
    labels: list[str]
    metrics: list[list[dict[str, Any]]]
    trace: dict[str, Any]

    @property
    def status(self) -> str:
        """finished, failed, or unfinished where no process lived to say why."""
        return self.summary.get("status", "unfinished")

    @property
    def is_replay(self) -> bool:
        """Whether stages read old batches again instead of waiting for new ones."""
        return self.setting("buffers", "policy") == "replay"

    @property
    def uses_gpu(self) -> bool:
        """Whether its stages ran on GPUs."""
        return bool(self.summary.get("hardware", {}).get("gpus")) and self.setting("placement", "device") != "cpu"

    def setting(self, section: str, key: str) -> Any:
        """A value of config.yaml, None where there is none."""
        return self.config.get(section, {}).get(key)

    def steps(self, rank: int) -> list[dict[str, Any]]:
        """A process's records of training steps, of all its blocks, in order."""
        return [record for record in self.metrics[rank] if "loss" in record]

    @cached_property
    def blocks(self) -> list[list[int]]:
        """Indices of the blocks of every process."""
        if "stages" in self.summary:
            return [stage["blocks"] for stage in self.summary["stages"]]
        return [sorted({record["block"] for record in self.steps(rank)}) for rank in range(len(self.metrics))]

    @property
    def num_blocks(self) -> int:
        """Blocks of the network that any stage has told of."""
        return 1 + max((block for blocks in self.blocks for block in blocks), default=0)

    @cached_property
    def stages(self) -> list[dict[str, Any]]:
        """The processes of summary.json, by rank; of a run that has not finished, what their last records say."""
        return self.summary.get("stages") or [_stage_so_far(rank, self) for rank in range(len(self.metrics))]

    @property
    def lost_spans(self) -> dict[str, int]:
        """By stage, those that its recorder had no room for."""
        return self.trace.get("otherData", {}).get("spans_without_room", {})

    @cached_property
    def spans(self) -> list[Span]:
        """The spans of the trace, in order of their start."""
        return [
            Span(
                event["args"]["rank"],
                event["args"]["stage"],
                event["cat"],
                event["name"],
                event["ts"] / 1e6,
                (event["ts"] + event["dur"]) / 1e6,
                event["args"]["batch_id"],
            )
            for event in self.trace.get("traceEvents", [])
            if event["ph"] == "X"
        ]


def read_run(folder: Path) -> RunRecord:
    """Reads a run's folder; a line that a killed process has left half written is left out.

    Raises:
        ValueError: The folder is not a run's.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: not a run's folder: it has no config.yaml")
    files = {path.stem.removeprefix("stage"): path for path in (folder / "metrics").glob("stage*.jsonl")}
    labels = sorted(files, key=lambda label: [int(number) for number in label.split(".")])
    return RunRecord(
        folder=folder,
        config=yaml.safe_load((folder / "config.yaml").read_text()),
        summary=_read_json(folder / "summary.json"),
        evaluations=_read_lines(folder / "metrics" / "evaluations.jsonl"),
        labels=labels,
        metrics=[_read_lines(files[label]) for label in labels],
        trace=_read_json(folder / "trace.json"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def _stage_so_far(rank: int, run: RunRecord) -> dict[str, Any]:
    known = {"label": run.labels[rank], "blocks": run.blocks[rank]}
    if not run.steps(rank):
        return known
    last = run.steps(rank)[-1]
    waits = last["wait_input_fraction"] + last["wait_output_fraction"]
    return known | last | {"busy_fraction": max(0.0, 1 - waits)}
