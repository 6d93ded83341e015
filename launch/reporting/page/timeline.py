"""A few batches of all stages on one clock, from trace.json, as inline SVG."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from statistics import median_high

from greedypipe.launch.reporting.page.charts import Scale, legend, number, ticks
from greedypipe.launch.reporting.page.record import RunRecord, Span
from greedypipe.launch.reporting.page.style import SPAN_COLOURS, SPAN_WORDS
from greedypipe.workers.telemetry.phrases import range_of_blocks

BATCHES = 7
"""Shown, of a middling stage: with replay their paces differ."""
WIDTH, LEFT, RIGHT = 1060, 66, 10
ROW, BAR, THIN = 50, 26, 9
"""Pixels of a stage's row, of what it does in it, and of what it waits for."""
TOP, BOTTOM = 6, 40
LEAST_LABELLED_PX = 22
WAITS = ("wait_input", "wait_room", "wait_feedback")


@dataclass(frozen=True)
class Window:
    """The part of a trace that is shown; seconds since the trace began."""

    start_s: float
    end_s: float

    def shows(self, span: Span) -> bool:
        """Whether any part of a span lies in it."""
        return span.end_s > self.start_s and span.start_s < self.end_s

    def overlap_s(self, others: Iterable["Window"]) -> float:
        """Seconds that it shares with others, summed."""
        shared = (min(self.end_s, other.end_s) - max(self.start_s, other.start_s) for other in others)
        return sum(max(0.0, seconds) for seconds in shared)


def timeline(run: RunRecord) -> str:
    """The figure with its legend, or how to get one."""
    if not run.spans:
        return (
            '<p class="missing">This run recorded no trace. <code>logging.trace_batches=20</code> records 20 training '
            "batches of each stage, from <code>logging.trace_start</code> on.</p>"
        )
    window = choose_window(run.spans)
    spans = [span for span in run.spans if window.shows(span)]
    rows = {rank: row for row, rank in enumerate(sorted({span.rank for span in run.spans}))}
    followed = _followed(spans, window)
    across = Scale(window.start_s, window.end_s, LEFT, WIDTH - RIGHT)
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [
        *_axis(across, window, height),
        *(_label(run, rank, row) for rank, row in rows.items()),
        *(_unrecorded(row) for rank, row in rows.items() if all(span.rank != rank for span in spans)),
        *(_span(span, rows[span.rank], across, span.batch_id == followed) for span in spans),
        *_arrows(spans, rows, across, followed),
    ]
    seen = {span.kind for span in spans}
    entries = [(SPAN_WORDS[kind], colour) for kind, colour in SPAN_COLOURS.items() if kind in seen]
    note = f"Batch {followed} is outlined{': follow it from stage to stage' if len(rows) > 1 else ''}. "
    note += "Numbers are batch_ids; waits are thin."
    if run.lost_spans:
        note += f" There was no room for {sum(run.lost_spans.values()):,} spans of {escape(', '.join(run.lost_spans))}."
    if run.uses_gpu:
        note += " Times are the hosts': on a GPU a span shows the launching of kernels, which may run later."
    figure = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="timeline">{"".join(parts)}</svg>'
    note += " All of it: open trace.json in ui.perfetto.dev."
    return f'{legend(entries)}<div class="wide">{figure}</div><p class="note">{note}</p>'


def choose_window(spans: Sequence[Span]) -> Window:
    """As much as BATCHES batches of a middling stage, where most of the stages were recorded and least evaluated."""
    by_stage = [[span for span in spans if span.rank == rank] for rank in {span.rank for span in spans}]
    recorded = [Window(stage[0].start_s, max(span.end_s for span in stage)) for stage in by_stage]
    start_s, end_s = min(window.start_s for window in recorded), max(window.end_s for window in recorded)
    period_s = median_high(_period_s(stage, end_s - start_s) for stage in by_stage)
    length_s = min(BATCHES * period_s, end_s - start_s)
    shifts = range(int((end_s - start_s - length_s) / period_s) + 1)
    windows = [Window(start_s + shift * period_s, start_s + shift * period_s + length_s) for shift in shifts]
    evaluations = [Window(span.start_s, span.end_s) for span in spans if span.kind == "evaluate"]
    return max(windows, key=lambda window: window.overlap_s(recorded) - window.overlap_s(evaluations))


def _period_s(spans: Sequence[Span], otherwise_s: float) -> float:
    """Median seconds from one training batch of a stage to the next."""
    starts = [after.start_s for before, after in pairwise(_forwards(spans)) if after.batch_id != before.batch_id]
    periods = [after - before for before, after in pairwise(starts)]
    return median_high(periods) if periods else otherwise_s


def _forwards(spans: Sequence[Span]) -> list[Span]:
    return [span for span in spans if span.kind in ("forward", "hand_on")]


def _followed(spans: Sequence[Span], window: Window) -> int:
    """The batch that the window shows in most stages; of several, the one nearest to the middle."""
    middle_s = (window.start_s + window.end_s) / 2
    stages: dict[int, set[int]] = {}
    distance_s: dict[int, float] = {}
    for span in _forwards(spans):
        stages.setdefault(span.batch_id, set()).add(span.stage)
        distance_s[span.batch_id] = distance_s.get(span.batch_id, 0.0) + abs(span.start_s - middle_s)
    return max(stages, key=lambda batch: (len(stages[batch]), -distance_s[batch]), default=-1)


def _axis(across: Scale, window: Window, height: int) -> Iterator[str]:
    bottom = height - BOTTOM
    for value in ticks(0.0, 1000 * (window.end_s - window.start_s), 11):
        x = across(window.start_s + value / 1000)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{number(value)}</text>'
    yield f'<text class="title" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 5}" text-anchor="middle">milliseconds</text>'


def _label(run: RunRecord, rank: int, row: int) -> str:
    middle = TOP + ROW * row + ROW / 2
    hosted = range_of_blocks(run.blocks[rank])
    return (
        f'<text class="stage" x="0" y="{middle - 2:.1f}">stage {escape(run.labels[rank])}</text>'
        f'<text class="tick" x="0" y="{middle + 12:.1f}">{escape(hosted)}</text>'
    )


def _unrecorded(row: int) -> str:
    middle = TOP + ROW * row + ROW / 2
    text = "recorded at another time: the stages had drifted apart"
    return f'<text class="title" x="{LEFT + 12}" y="{middle + 4:.1f}">{text}</text>'


def _span(span: Span, row: int, across: Scale, is_followed: bool) -> str:
    left, right = max(across(span.start_s), LEFT), min(across(span.end_s), WIDTH - RIGHT)
    thickness = THIN if span.kind in WAITS else BAR
    middle = TOP + ROW * row + ROW / 2
    outline = ' class="followed"' if is_followed and span.kind not in WAITS else ""
    text = f"{span.name}, batch {span.batch_id}, {1000 * (span.end_s - span.start_s):.2f} ms"
    place = f'x="{left:.2f}" y="{middle - thickness / 2:.1f}" width="{max(right - left, 0.3):.2f}" height="{thickness}"'
    rect = f'<rect {place} fill="{SPAN_COLOURS[span.kind]}"{outline}><title>{escape(text)}</title></rect>'
    if span.kind in ("learn", "hand_on") and right - left >= LEAST_LABELLED_PX:
        rect += f'<text class="inside" x="{(left + right) / 2:.1f}" y="{middle + 4:.1f}">{span.batch_id}</text>'
    return rect


def _arrows(spans: Sequence[Span], rows: dict[int, int], across: Scale, followed: int) -> Iterator[str]:
    """From every send to the first forward of its batch in each process of the next stage."""
    arrivals: dict[tuple[int, int], dict[int, float]] = {}
    for span in _forwards(spans):
        arrivals.setdefault((span.stage, span.batch_id), {}).setdefault(span.rank, span.start_s)
    for span in spans:
        if span.kind != "send":
            continue
        for rank, arrival_s in arrivals.get((span.stage + 1, span.batch_id), {}).items():
            if arrival_s < span.start_s:
                continue
            x1, x2 = (max(LEFT, min(WIDTH - RIGHT, across(time_s))) for time_s in (span.end_s, arrival_s))
            y1 = TOP + ROW * rows[span.rank] + (ROW + BAR) / 2
            y2 = TOP + ROW * rows[rank] + (ROW - BAR) / 2
            kind = "arrow followed" if span.batch_id == followed else "arrow"
            bend = f"C{x1:.1f} {y1 + 14:.1f} {x2:.1f} {y2 - 14:.1f} {x2:.1f} {y2:.1f}"
            yield f'<path class="{kind}" d="M{x1:.1f} {y1:.1f} {bend}"/>'
