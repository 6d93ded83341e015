"""The stages' recorded spans as one file in Chrome's trace event format, which Perfetto opens.

Perfetto's habits decide some details: process and thread 0 are the kernel's idle ones to it, it looks threads up by
their number alone, whatever their process, and it takes the ends of an arrow together by a number, not a text.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from greedypipe.workers.around.recorder import WORK
from greedypipe.workers.atomic import write_record
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.phrases import range_of_blocks
from greedypipe.workers.telemetry.records import Spans

US_PER_S = 1e6
ARROWS_PER_LINK, MOST_PROCESSES = 1 << 32, 1 << 10
"""More than any run has batches: every arrow has a number of its own, small enough for every reader of JSON."""
WORK_NAMES = {kind.name.lower() for kind in WORK}


def write_trace(
    folder: Path, traces: Sequence[Spans | None], seats: Sequence[Seat], blocks: Sequence[Sequence[int]]
) -> None:
    """Writes `trace.json`; nothing where no stage has recorded anything.

    Args:
        traces: `Recorder.spans` of every process, by rank; `seats` and the `blocks` that it hosts likewise.
    """
    known = {seat: trace for seat, trace in zip(seats, traces, strict=True) if trace and trace.start_s}
    if not known:
        return
    events = [event for seat, trace in known.items() for event in _names(seat, blocks[seat.rank], trace)]
    events += sorted(_events(known), key=lambda event: event["ts"])
    lost = {seat.name: trace.lost for seat, trace in known.items() if trace.lost}
    header = {"displayTimeUnit": "ms", "otherData": {"spans_without_room": lost}}
    write_record(folder / "trace.json", json.dumps(header | {"traceEvents": events}), durable=False)


def _names(seat: Seat, blocks: Sequence[int], trace: Spans) -> Iterator[dict[str, Any]]:
    names = {
        "process_name": {"name": f"{seat.name} ({range_of_blocks(blocks)})"},
        "process_sort_index": {"sort_index": seat.rank},
        "thread_name": {"name": "training loop"},
    }
    for name, value in names.items():
        yield {"ph": "M", "name": name, "args": value} | _place(seat)
    if trace.work_overlaps:
        yield {"ph": "M", "name": "thread_name", "args": {"name": "GPU"}} | _place(seat, is_beside=True)


def _place(seat: Seat, is_beside: bool = False) -> dict[str, Any]:
    """The process that stands for a process of the run, and its thread; or the one beside it, of what overlaps with it."""
    return {"pid": seat.rank + 1, "tid": seat.rank + 1 + MOST_PROCESSES * is_beside}


def _events(traces: dict[Seat, Spans]) -> Iterator[dict[str, Any]]:
    shifts_s = {seat: _shift_s(trace, next(iter(traces.values()))) for seat, trace in traces.items()}
    origin_s = min(min(trace.start_s) + shifts_s[seat] for seat, trace in traces.items())
    arrows = Arrows(traces)
    for seat, trace in traces.items():
        columns = (trace.start_s, trace.end_s, trace.kind, trace.block, trace.batch_id)
        for start_s, end_s, kind, block, batch_id in zip(*columns, strict=True):
            start_us = (start_s + shifts_s[seat] - origin_s) * US_PER_S
            place = _place(seat, trace.work_overlaps and kind in WORK_NAMES) | {"ts": round(start_us, 3)}
            name = kind.replace("_", " ") + (f" {block}" if block >= 0 else "")
            yield place | {
                "ph": "X",
                "name": name,
                "cat": kind,
                "dur": round((end_s - start_s) * US_PER_S, 3),
                "args": {"stage": seat.stage, "rank": seat.rank, "batch_id": batch_id},
            }
            for end in arrows.ends(seat, kind, batch_id):
                yield {"name": "activation", "cat": "link"} | place | end


class Arrows:
    """Arrows from a batch's send to its first forward in every process of the next stage, where both were recorded."""

    def __init__(self, traces: dict[Seat, Spans]) -> None:
        self._spans = {seat: set(zip(trace.kind, trace.batch_id, strict=True)) for seat, trace in traces.items()}
        self._arrived: set[tuple[Seat, int]] = set()

    def ends(self, seat: Seat, kind: str, batch_id: int) -> Iterator[dict[str, Any]]:
        """The ends of arrows that a span has, if any."""
        if kind == "send":
            for receiver in self._with("forward", seat.stage + 1, batch_id):
                yield {"ph": "s", "id": self._number(seat, receiver, batch_id)}
        if kind == "forward" and (seat, batch_id) not in self._arrived:
            self._arrived.add((seat, batch_id))
            for sender in self._with("send", seat.stage - 1, batch_id):
                yield {"ph": "f", "bp": "e", "id": self._number(sender, seat, batch_id)}

    def _with(self, kind: str, stage: int, batch_id: int) -> list[Seat]:
        return [seat for seat, spans in self._spans.items() if seat.stage == stage and (kind, batch_id) in spans]

    def _number(self, sender: Seat, receiver: Seat, batch_id: int) -> int:
        return (sender.rank * MOST_PROCESSES + receiver.rank) * ARROWS_PER_LINK + batch_id


def _shift_s(trace: Spans, reference: Spans) -> float:
    """What to add to a stage's times to have them on the reference's clock: by wall clock between hosts."""
    return 0.0 if trace.host == reference.host else trace.epoch_s - reference.epoch_s
