"""What a stage's recorder keeps, and how the stages' spans become one file."""

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from greedypipe.launch.reporting.trace_file import ARROWS_PER_LINK, write_trace
from greedypipe.workers.around.recorder import MOST_SPANS, Recorder, SpanKind, clock_origin_s
from greedypipe.workers.around.trace import TracedInbox, TracedOutbox, make_tracing
from greedypipe.workers.inbox import Delivery
from greedypipe.workers.links.interface import DeadEnd, LinkStats, Sender
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.meter import LoggingConfig
from greedypipe.workers.telemetry.records import Spans
from greedypipe.workers.telemetry.topics import TRACE
from tests.unit.tiny import batch, make_block
from tests.unit.tiny import train as train_block

SEATS = [Seat(rank, rank) for rank in range(3)]
FIRST_TO_SECOND = ARROWS_PER_LINK


class Outbox(Sender):
    """Waits for room as long as it is told, by its own account."""

    def __init__(self) -> None:
        self._stats = LinkStats("test")
        self.sent: list[int] = []
        self.closed = False

    @property
    def stats(self) -> LinkStats:
        return self._stats

    def send(self, message: Message) -> None:
        time.sleep(0.001)
        self._stats.count(8, send_s=0.0, wait_room_s=0.0005 if message.batch_id % 2 else 0.0)
        self.sent.append(message.batch_id)

    def close(self) -> None:
        self.closed = True

    def abandon(self) -> None:
        self.closed = True


def deliveries(*messages: tuple[Kind, int]) -> list[Delivery]:
    return [Delivery(Message(kind, batch_id), 0, 1) for kind, batch_id in messages]


def recorded(recorder: Recorder) -> list[tuple[str, int]]:
    spans = recorder.spans()
    return list(zip(spans.kind, spans.batch_id, strict=True))


def train(*batch_ids: int) -> list[Delivery]:
    return deliveries(*((Kind.TRAIN, batch_id) for batch_id in batch_ids))


def test_a_window_starts_with_a_new_enough_batch_and_ends_after_so_many() -> None:
    recorder = Recorder(first_batch_id=5, batches=3, capacity=99)
    for _ in TracedInbox(train(3, 4, 7, 6, 6, 8), recorder, recorder, SpanKind.WAIT_INPUT):  # type: ignore[arg-type]
        pass
    assert recorded(recorder) == [("wait_input", 7), ("wait_input", 6), ("wait_input", 6)]


def test_evaluation_is_recorded_among_the_batches_of_the_window_only() -> None:
    recorder = Recorder(first_batch_id=1, batches=2, capacity=99)
    stream = deliveries(
        (Kind.TRAIN, 0),
        (Kind.EVALUATE, 0),
        (Kind.TRAIN, 1),
        (Kind.EVALUATE, 0),
        (Kind.EVALUATED, 1),
        (Kind.TRAIN, 2),
        (Kind.EVALUATE, 0),
        (Kind.END, 3),
    )
    assert list(TracedInbox(stream, recorder, recorder, SpanKind.DATA)) == stream  # type: ignore[arg-type]
    assert recorded(recorder) == [
        ("data", 1),
        ("data", 0),
        ("evaluate", 0),
        ("data", 1),
        ("evaluate", 1),
        ("data", 2),
    ]


def test_waiting_for_the_very_first_message_is_no_span() -> None:
    recorder = Recorder(first_batch_id=0, batches=2, capacity=99)
    list(TracedInbox(train(0, 1), recorder, recorder, SpanKind.WAIT_INPUT))  # type: ignore[arg-type]
    assert recorded(recorder) == [("wait_input", 1)]


def test_a_full_recorder_counts_what_it_loses() -> None:
    recorder = Recorder(first_batch_id=0, batches=9, capacity=2)
    list(TracedInbox(train(0, 1, 2, 3, 4), recorder, recorder, SpanKind.WAIT_INPUT))  # type: ignore[arg-type]
    assert recorded(recorder) == [("wait_input", 1), ("wait_input", 2)]
    assert recorder.spans().lost == 2


def test_a_full_recorder_fits_into_one_value_of_the_rendezvous_store() -> None:
    recorder, limit_bytes = Recorder(first_batch_id=0, batches=1, capacity=MOST_SPANS), 8 << 20
    recorder.begin(Message(Kind.TRAIN, 10**7))
    ten_years_s = 3e8
    for span in range(MOST_SPANS):
        recorder.add(SpanKind.WAIT_INPUT, ten_years_s + span / 3, ten_years_s + span / 3 + 1e-5, block=100)
    assert len(TRACE.write(recorder.spans())) < limit_bytes
    assert make_tracing(LoggingConfig(trace_batches=5000), 0, 100)._recorder._capacity == MOST_SPANS


def test_a_send_is_split_into_waiting_and_sending_and_sends_of_other_messages_pass_through() -> None:
    recorder, inner = Recorder(first_batch_id=1, batches=2, capacity=99), Outbox()
    outbox = TracedOutbox(inner, recorder)  # type: ignore[arg-type]
    for delivery in train(0, 1, 2, 3):
        recorder.begin(delivery.message)
        outbox.send(delivery.message)
    outbox.close()
    assert inner.sent == [0, 1, 2, 3] and inner.closed
    assert recorded(recorder) == [("wait_room", 1), ("send", 1), ("send", 2)]
    spans = recorder.spans()
    assert spans.end_s[0] - spans.start_s[0] == pytest.approx(0.0005, abs=1e-6)
    assert spans.end_s[0] == spans.start_s[1] and outbox.wait_room_s == inner.stats.wait_room_s


def test_a_traced_block_computes_what_the_block_does() -> None:
    plain, tracing = make_block(), make_tracing(LoggingConfig(trace_batches=4, trace_start=0), 0, 1)
    (traced,) = tracing.blocks([make_block()])
    x, given = batch(plain)
    (delivery,) = train(0)
    for _ in tracing.inbox([delivery]):  # type: ignore[arg-type]
        assert torch.equal(traced.forward(x, given), plain.forward(x, given))
        assert traced.learn() == plain.learn()
        assert torch.equal(traced.pass_through(x), plain.pass_through(x))
        assert torch.equal(traced.predict(x)[1], plain.predict(x)[1])
    assert traced.step == plain.step == 1
    spans = tracing.spans()
    assert spans is not None and spans.kind == ["forward", "learn"]


def test_a_finished_block_is_recorded_as_passing_through() -> None:
    tracing, block = make_tracing(LoggingConfig(trace_batches=1, trace_start=0), 0, 1), make_block()
    train_block(block, range(block.total_steps))
    (traced,) = tracing.blocks([block])
    for _ in tracing.inbox(train(0)):  # type: ignore[arg-type]
        traced.forward(*batch(block))
        assert traced.learn().loss is None
    spans = tracing.spans()
    assert spans is not None and spans.kind == ["hand_on"]


def test_without_a_trace_every_part_stays_itself() -> None:
    tracing = make_tracing(LoggingConfig(), 0, 1)
    blocks, inbox, outbox = [make_block()], SimpleNamespace(), DeadEnd()
    assert tracing.blocks(blocks) is blocks
    assert tracing.inbox(inbox) is inbox  # type: ignore[comparison-overlap]
    assert tracing.outbox(outbox) is outbox
    assert tracing.spans() is None


def test_the_last_stage_keeps_its_dead_end() -> None:
    outbox = DeadEnd()
    assert make_tracing(LoggingConfig(trace_batches=1), 1, 1).outbox(outbox) is outbox


def test_the_clock_origin_is_that_of_the_wall_clock() -> None:
    assert clock_origin_s() + time.perf_counter() == pytest.approx(time.time(), abs=0.5)


def spans_of(host: str, epoch_s: float, *spans: tuple[str, float, float, int, int]) -> Spans:
    kinds, starts, ends, blocks, batch_ids = map(list, zip(*spans, strict=True))
    return Spans(host, epoch_s, starts, ends, kinds, blocks, batch_ids, lost=0)


def events(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "trace.json").read_text())["traceEvents"]


def test_stages_of_other_hosts_are_put_on_the_first_ones_clock(tmp_path: Path) -> None:
    first = spans_of("a", 1000.0, ("forward", 5.0, 5.5, 0, 7), ("send", 5.5, 5.75, -1, 7))
    same_host = spans_of("a", 1000.25, ("forward", 6.0, 6.5, 1, 7))
    other_host = spans_of("b", 900.0, ("forward", 107.0, 108.0, 2, 7))
    write_trace(tmp_path, [first, same_host, other_host], SEATS, [[0], [1], [2]])
    shown = [event for event in events(tmp_path) if event["ph"] == "X"]
    spans = [(event["args"]["stage"], event["name"], event["ts"], event["dur"]) for event in shown]
    assert spans == [
        (0, "forward 0", 0, 500_000),
        (0, "send", 500_000, 250_000),
        (1, "forward 1", 1_000_000, 500_000),
        (2, "forward 2", 2_000_000, 1_000_000),
    ]


def test_an_arrow_leads_from_a_send_to_the_first_forward_of_its_batch(tmp_path: Path) -> None:
    first = spans_of("a", 0.0, ("send", 1.0, 1.5, -1, 7), ("send", 2.0, 2.5, -1, 8))
    second = spans_of("a", 0.0, ("forward", 3.0, 3.5, 1, 7), ("forward", 4.0, 4.5, 1, 7), ("forward", 5.0, 6.0, 1, 9))
    write_trace(tmp_path, [first, second], SEATS[:2], [[0], [1]])
    arrows = [(event["ph"], event["pid"], event["ts"], event["id"]) for event in events(tmp_path) if event["ph"] in "sf"]
    assert arrows == [("s", 1, 0, FIRST_TO_SECOND + 7), ("f", 2, 2_000_000, FIRST_TO_SECOND + 7)]


def test_stages_are_processes_and_threads_that_perfetto_tells_apart(tmp_path: Path) -> None:
    trace = spans_of("a", 0.0, ("forward", 1.0, 1.5, 0, 7))
    write_trace(tmp_path, [trace, trace], SEATS[:2], [[0], [1, 2]])
    processes = [event for event in events(tmp_path) if event["name"] == "process_name"]
    names = {(event["pid"], event["tid"]): event["args"]["name"] for event in processes}
    assert names == {(1, 1): "stage 0 (block 0)", (2, 2): "stage 1 (blocks 1-2)"}


def test_spans_without_room_are_told_of(tmp_path: Path) -> None:
    trace = spans_of("a", 0.0, ("forward", 1.0, 1.5, 0, 7))
    write_trace(tmp_path, [trace, replace(trace, lost=3)], SEATS[:2], [[0], [1]])
    assert json.loads((tmp_path / "trace.json").read_text())["otherData"] == {"spans_without_room": {"stage 1": 3}}


def test_nothing_is_written_where_nothing_was_recorded(tmp_path: Path) -> None:
    write_trace(tmp_path, [None, None], SEATS[:2], [[0], [1]])
    assert list(tmp_path.iterdir()) == []
