"""The stages' recorded spans as one file in Chrome's trace event format, which Perfetto opens.

Perfetto's habits decide some details: process and thread 0 are the kernel's idle ones to it, it looks threads up by
their number alone, whatever their process, and it takes the ends of an arrow together by a number, not a text.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

US_PER_S = 1e6
ARROWS_PER_LINK = 1 << 32
"""More than any run has batches: every arrow has a number of its own, small enough for every reader of JSON."""


def write_trace(folder: Path, traces: Sequence[dict[str, Any] | None], blocks: Sequence[Sequence[int]]) -> None:
    """Writes `trace.json`; nothing where no stage has recorded anything.

    Args:
        traces: `workers.trace.Recorder.spans` of every stage, in order.
        blocks: Indices of the blocks of every stage.
    """
    known = {stage: trace for stage, trace in enumerate(traces) if trace and trace["start_s"]}
    if not known:
        return
    events = [event for stage in known for event in _names(stage, blocks[stage])]
    events += sorted(_events(known), key=lambda event: event["ts"])
    lost = {f"stage {stage}": trace["lost"] for stage, trace in known.items() if trace["lost"]}
    header = {"displayTimeUnit": "ms", "otherData": {"spans_without_room": lost}}
    (folder / "trace.json").write_text(json.dumps(header | {"traceEvents": events}))


def _names(stage: int, blocks: Sequence[int]) -> Iterator[dict[str, Any]]:
    hosted = f"block {blocks[0]}" if len(blocks) == 1 else f"blocks {blocks[0]}-{blocks[-1]}"
    names = {"process_name": {"name": f"stage {stage} ({hosted})"}, "process_sort_index": {"sort_index": stage},
             "thread_name": {"name": "training loop"}}  # fmt: skip
    for name, value in names.items():
        yield {"ph": "M", "name": name, "args": value} | _place(stage)


def _place(stage: int) -> dict[str, Any]:
    """The process and its only thread that stand for a stage."""
    return {"pid": stage + 1, "tid": stage + 1}


def _events(traces: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    shifts_s = {stage: _shift_s(trace, next(iter(traces.values()))) for stage, trace in traces.items()}
    origin_s = min(min(trace["start_s"]) + shifts_s[stage] for stage, trace in traces.items())
    arrows = Arrows(traces)
    for stage, trace in traces.items():
        columns = (trace[name] for name in ("start_s", "end_s", "activity", "block", "batch_id"))
        for start_s, end_s, activity, block, batch_id in zip(*columns, strict=True):
            start_us = (start_s + shifts_s[stage] - origin_s) * US_PER_S
            place = _place(stage) | {"ts": round(start_us, 3)}
            name = activity.replace("_", " ") + (f" {block}" if block >= 0 else "")
            yield place | {
                "ph": "X", "name": name, "cat": activity, "dur": round((end_s - start_s) * US_PER_S, 3),
                "args": {"stage": stage, "batch_id": batch_id},
            }  # fmt: skip
            for end in arrows.ends(stage, activity, batch_id):
                yield {"name": "activation", "cat": "link"} | place | end


class Arrows:
    """Arrows from a batch's send to its first forward at the next stage, where both were recorded."""

    def __init__(self, traces: dict[int, dict[str, Any]]) -> None:
        self._spans = {stage: set(zip(trace["activity"], trace["batch_id"], strict=True)) for stage, trace in traces.items()}
        self._arrived: set[tuple[int, int]] = set()

    def ends(self, stage: int, activity: str, batch_id: int) -> Iterator[dict[str, Any]]:
        """The end of an arrow that a span has, if any."""
        if activity == "send" and ("forward", batch_id) in self._spans.get(stage + 1, ()):
            yield {"ph": "s", "id": stage * ARROWS_PER_LINK + batch_id}
        arrives = activity == "forward" and ("send", batch_id) in self._spans.get(stage - 1, ())
        if arrives and (stage, batch_id) not in self._arrived:
            self._arrived.add((stage, batch_id))
            yield {"ph": "f", "bp": "e", "id": (stage - 1) * ARROWS_PER_LINK + batch_id}


def _shift_s(trace: dict[str, Any], reference: dict[str, Any]) -> float:
    """What to add to a stage's times to have them on the reference's clock: by wall clock between hosts."""
    return 0.0 if trace["host"] == reference["host"] else trace["epoch_s"] - reference["epoch_s"]
