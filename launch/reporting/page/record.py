"""What a run has left in its folder, as far as it got: the material of a report."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from greedypipe.workers.jsonl import read_lines
from greedypipe.workers.telemetry.results import (
    EVALUATIONS,
    METRICS,
    Evaluation,
    Failure,
    RunEnd,
    StageReport,
    StepRecord,
    Summary,
)
from greedypipe.workers.telemetry.summary_file import read_summary

UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Span:
    """What a process did for a while; seconds since the trace began."""

    rank: int
    stage: int
    kind: str
    name: str
    start_s: float
    end_s: float
    batch_id: int


@dataclass(frozen=True)
class StageFigures:
    """What is known of one process: from its report or, where the run has not finished, from its last record.

    Attributes:
        busy_fraction: None where no training step was recorded; so are the waits and the step time.
        reuse_mean: None in stage 0, which reads from no buffer; so are the other figures of its reads.
        send_s: Seconds per message.
    """

    label: str
    blocks: list[int]
    parameters: int | None = None
    head_parameters: int | None = None
    batches: int | None = None
    samples: int | None = None
    step_time_s: float | None = None
    busy_fraction: float | None = None
    wait_input_fraction: float | None = None
    wait_output_fraction: float | None = None
    wait_feedback_fraction: float | None = None
    staleness_mean: float | None = None
    staleness_max: int | None = None
    staleness_counts: tuple[int, ...] = ()
    reuse_mean: float | None = None
    dropped: int | None = None
    occupancy_mean: float | None = None
    sent_bytes: int | None = None
    send_s: float | None = None
    slot_bytes: int | None = None
    peak_memory_bytes: int | None = None

    @classmethod
    def reported(cls, report: StageReport) -> "StageFigures":
        """The figures of a process that has come to its end."""
        link = report.link
        return cls(
            label=report.label,
            blocks=report.blocks,
            parameters=report.parameters,
            head_parameters=report.head_parameters,
            batches=report.batches,
            samples=report.samples,
            busy_fraction=report.busy_fraction,
            staleness_counts=tuple(report.staleness_counts),
            sent_bytes=link.sent_bytes or None,
            send_s=link.send_s / link.messages if link.messages else None,
            slot_bytes=report.slot_bytes or None,
            peak_memory_bytes=report.peak_memory_bytes,
            **_shared(report),
        )

    @classmethod
    def so_far(cls, label: str, blocks: list[int], records: list[StepRecord]) -> "StageFigures":
        """The figures of a process that has left only records, as its last one gives them."""
        if not records:
            return cls(label, blocks)
        last = records[-1]
        busy = max(0.0, 1 - last.wait_input_fraction - last.wait_output_fraction - last.wait_feedback_fraction)
        return cls(label, blocks, busy_fraction=busy, sent_bytes=last.sent_bytes or None, **_shared(last))


def _shared(source: StageReport | StepRecord) -> dict[str, Any]:
    """The figures that reports and records have under the same names."""
    names = ["step_time_s", "wait_input_fraction", "wait_output_fraction", "wait_feedback_fraction"]
    if source.reuse_mean:
        names += ["staleness_mean", "staleness_max", "reuse_mean", "dropped", "occupancy_mean"]
    return {name: getattr(source, name) for name in names}


@dataclass(frozen=True)
class RunRecord:
    """A run's files, read; what is missing is empty.

    Attributes:
        summary: None where no process lived to write one.
        labels: Of every process, by rank: its stage, and its replica where there are several.
        steps: Records of every process's training steps, of all its blocks, in order, by rank.
        trace: trace.json.
    """

    folder: Path
    config: dict[str, Any]
    summary: Summary | Failure | None
    evaluations: list[Evaluation]
    labels: list[str]
    steps: list[list[StepRecord]]
    trace: dict[str, Any]

    @property
    def end(self) -> Summary | None:
        """The summary of a run that was not torn from its work; None for all others."""
        return self.summary if isinstance(self.summary, Summary) else None

    @property
    def status(self) -> str:
        """How the run has ended; `UNFINISHED` where no process lived to say so."""
        return self.summary.status if self.summary else UNFINISHED

    @property
    def is_finished(self) -> bool:
        """Whether it has come to its end."""
        return self.status == RunEnd.FINISHED

    @property
    def is_replay(self) -> bool:
        """Whether stages read old batches again instead of waiting for new ones."""
        return bool(self.setting("buffers", "policy") == "replay")

    @property
    def is_one_by_one(self) -> bool:
        """Whether blocks train one after another, so that figures of stages are means over different work."""
        return bool(self.setting("training", "schedule") == "one_by_one")

    @property
    def uses_gpu(self) -> bool:
        """Whether its stages ran on GPUs."""
        return bool(self.end and self.end.hardware.get("gpus")) and self.setting("placement", "device") != "cpu"

    def setting(self, section: str, key: str) -> Any:
        """A value of config.yaml, None where there is none."""
        return self.config.get(section, {}).get(key)

    @cached_property
    def blocks(self) -> list[list[int]]:
        """Indices of the blocks of every process."""
        if self.end:
            return [report.blocks for report in self.end.stages]
        return [sorted({record.block for record in records}) for records in self.steps]

    @property
    def num_blocks(self) -> int:
        """Blocks of the network that any stage has told of."""
        return 1 + max((block for blocks in self.blocks for block in blocks), default=0)

    @cached_property
    def stages(self) -> list[StageFigures]:
        """What is known of every process, by rank."""
        if self.end:
            return [StageFigures.reported(report) for report in self.end.stages]
        return [StageFigures.so_far(*one) for one in zip(self.labels, self.blocks, self.steps, strict=True)]

    @property
    def lost_spans(self) -> dict[str, int]:
        """By stage, those that its recorder had no room for."""
        lost: dict[str, int] = self.trace.get("otherData", {}).get("spans_without_room", {})
        return lost

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
    lines = [read_lines(files[label], METRICS) for label in labels]
    return RunRecord(
        folder=folder,
        config=yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")),
        summary=read_summary(folder),
        evaluations=read_lines(folder / "metrics" / "evaluations.jsonl", EVALUATIONS),
        labels=labels,
        steps=[[record for record in records if isinstance(record, StepRecord)] for records in lines],
        trace=_read_trace(folder / "trace.json"),
    )


def _read_trace(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
