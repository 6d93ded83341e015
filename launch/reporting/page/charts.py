"""Line charts and histograms as inline SVG: text, so that a page with all of them stays small and needs no library."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 60, 14, 10, 42
MOST_POINTS = 160


@dataclass(frozen=True)
class Canvas:
    """Size of a figure in pixels of its own; the page scales it. What is drawn keeps clear of the labels."""

    width: int
    height: int

    @property
    def right(self) -> int:
        return self.width - RIGHT

    @property
    def bottom(self) -> int:
        return self.height - BOTTOM

    def svg(self, content: str, label: str) -> str:
        """The figure itself."""
        return f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(label)}">{content}</svg>'


WIDE, NARROW = Canvas(520, 250), Canvas(330, 200)


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """How values become labels: what is written beside the axis, and how a value is written."""

    title: str
    label: Callable[[float], str]
    starts_at_zero: bool = False
    whole: bool = False
    """Whether only whole numbers mean something."""


@dataclass(frozen=True)
class Scale:
    """A linear map of values [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def number(value: float) -> str:
    """Shortest of the usual ways to write a tick: 0.05, 1.5, 12,000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def percent(value: float) -> str:
    """A fraction as percentage."""
    return f"{100 * value:.3g}%"


def ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """At most `most` round values (1, 2 or 5 times a power of ten apart) in [low, high], low < high."""
    raw = max((high - low) / max(most - 1, 1), 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * count, 12) for count in range(first, math.floor(high / step + 1e-9) + 1)]


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Names with their colours, as a line of HTML that wraps."""
    items = (f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in entries)
    return f'<div class="legend">{"".join(items)}</div>'


def line_chart(series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Lines with axes, grid and a legend above; every point tells its values under the mouse."""
    series = [Series(line.name, line.colour, _thinned(line.points), line.dashed) for line in series if line.points]
    if not series:
        return '<p class="missing">Nothing was recorded.</p>'
    across = _scale([point[0] for line in series for point in line.points], x, LEFT, WIDE.right)
    up = _scale([point[1] for line in series for point in line.points], y, WIDE.bottom, TOP)
    labels = {value: x.label(value) for value in ticks(across.low, across.high, 8, x.whole)}
    frame = _y_axis(WIDE, up, y) + _x_axis(WIDE, across, x, labels)
    marks = "".join(_line(line, across, up, x, y) for line in series)
    return legend((line.name, line.colour) for line in series) + WIDE.svg(frame + marks, y.title)


def histogram(counts: Sequence[int], x: Axis, colour: str, last_and_more: bool) -> str:
    """Shares of `counts[0]`, `counts[1]` ...; `last_and_more`: the last entry stands for all larger values too."""
    shares = [count / sum(counts) for count in counts]
    y = Axis("share of reads", percent, starts_at_zero=True)
    up = _scale(shares, y, NARROW.bottom, TOP)
    across = Scale(-0.5, max(len(counts), 4) - 0.5, LEFT, NARROW.right)
    pitch = across(1) - across(0)
    gap = min(3.0, 0.15 * pitch)
    bars = "".join(
        f'<rect x="{across(value - 0.5) + gap:.1f}" y="{up(share):.1f}" width="{pitch - 2 * gap:.1f}" '
        f'height="{up(0) - up(share):.1f}" fill="{colour}" rx="2">'
        f"<title>{x.title} {value}: {counts[value]:,} reads, {share:.1%}</title></rect>"
        for value, share in enumerate(shares)
    )
    last = len(counts) - 1
    labels: dict[float, str] = {value: f"{value:g}" for value in ticks(0, last, 9, whole=True)} if last else {0: "0"}
    if last_and_more:
        labels[last] = f"{last}+"
    return NARROW.svg(_y_axis(NARROW, up, y) + bars + _x_axis(NARROW, across, x, labels), x.title)


def _scale(values: Sequence[float], axis: Axis, start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    low = min(0.0, low) if axis.starts_at_zero else low
    if low == high:
        low, high = (low, low + 1) if axis.starts_at_zero else (low - 0.5, high + 0.5)
    margin = 0.04 * (high - low) if end < start else 0.0  # of a y axis: no line is to run along the border
    return Scale(low if axis.starts_at_zero else low - margin, high + margin, start, end)


def _x_axis(canvas: Canvas, across: Scale, x: Axis, labels: Mapping[float, str]) -> str:
    base = f'<line class="base" x1="{LEFT}" x2="{canvas.right}" y1="{canvas.bottom}" y2="{canvas.bottom}"/>'
    texts = "".join(_text(across(value), canvas.bottom + 16, label, "middle") for value, label in labels.items())
    return base + texts + _text((LEFT + canvas.right) / 2, canvas.height - 4, x.title, "middle", "title")


def _y_axis(canvas: Canvas, up: Scale, y: Axis) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{canvas.right}" y1="{up(value):.1f}" y2="{up(value):.1f}"/>'
        + _text(LEFT - 7, up(value) + 4, y.label(value), "end")
        for value in ticks(up.low, up.high, 6)
    )


def _line(line: Series, across: Scale, up: Scale, x: Axis, y: Axis) -> str:
    places = [(across(one), up(two)) for one, two in line.points]
    path = " ".join(f"{one:.1f},{two:.1f}" for one, two in places)
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    radius = 2.6 if len(places) <= 40 else 1.2
    dots = "".join(
        f'<circle cx="{one:.1f}" cy="{two:.1f}" r="{radius}">'
        f"<title>{escape(line.name)}: {y.label(value)} at {escape(x.title)} {x.label(at)}</title></circle>"
        for (one, two), (at, value) in zip(places, line.points, strict=True)
    )
    return f'<g fill="{line.colour}"><polyline points="{path}" stroke="{line.colour}"{dash}/>{dots}</g>'


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most MOST_POINTS points: means of neighbours."""
    size = math.ceil(len(points) / MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [tuple(sum(column) / len(group) for column in zip(*group, strict=True)) for group in groups]


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
