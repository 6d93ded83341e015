"""The figure of README.md: four stages with buffers between them, and who works on which batch. Light and dark.

Sizes are in units of the drawing. A page shows it at 700 pixels or more, so that the smallest text has 12 pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

WIDTH, HEIGHT = 840, 436
STAGES = 4
SMALL, TEXT = 14.5, 15.5
FONT = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Palette:
    """Colours of one theme; those of batches have their own hue and share saturation and lightness."""

    text: str
    line: str
    stage: str
    block: str
    head: str
    gradient: str
    held: str
    batch: str

    def batch_fill(self, batch: int) -> str:
        """The same in all stages, so that the eye can follow a batch down the strip."""
        return f"hsl({190 + 19 * batch % 360}, {self.batch})"


LIGHT = Palette(
    text="#1f2328",
    line="#59636e",
    stage="#f6f8fa",
    block="#dbeafe",
    head="#ffffff",
    gradient="#c2410c",
    held="#93c5fd",
    batch="70%, 87%",
)
DARK = Palette(
    text="#e6edf3",
    line="#9198a1",
    stage="#161b22",
    block="#1e3a5f",
    head="#0d1117",
    gradient="#fb923c",
    held="#3b82c4",
    batch="42%, 31%",
)

STAGE_W, STAGE_H, STAGE_Y = 122, 206, 8
FIRST_X, GAP = 84, 66
BLOCK_H, BLOCK_Y = 46, STAGE_Y + STAGE_H - 57
FLOW_Y = BLOCK_Y + BLOCK_H / 2
HEAD_Y, LOSS_Y, PART_H = STAGE_Y + 93, STAGE_Y + 37, 28
LEGEND_Y = STAGE_Y + STAGE_H + 30
STRIP_X, STRIP_Y, CELL_W, CELL_H, COLUMNS = 84, LEGEND_Y + 36, 62, 27, 12
SNAPSHOT = 7
"""Column of the strip that the frame marks: one moment, with all stages at work."""


def figure(colours: Palette) -> str:
    """The whole drawing as SVG."""
    stages = [part for stage in range(STAGES) for part in _stage(colours, stage)]
    body = "\n".join([*stages, *_flow(colours), *_legend(colours), *_strip(colours)])
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" \
role="img" font-family="{FONT}" font-size="{TEXT}" fill="{colours.text}">
<title>Four stages, each with a block, a head and a local loss; activations and labels travel forward through buffers, \
gradients stay inside a stage, and all stages work on different batches at the same time</title>
<defs>
{_arrowhead("flow", colours.line)}
{_arrowhead("gradient", colours.gradient)}
</defs>
{body}
</svg>
"""


def _arrowhead(name: str, colour: str) -> str:
    shape = f'<path d="M0 0 L8 4 L0 8 Z" fill="{colour}"/>'
    place = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    return f'<marker id="{name}" {place}>{shape}</marker>'


def _box(x: float, y: float, width: float, height: float, fill: str, stroke: str = "none", radius: float = 6) -> str:
    size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"'
    return f'<rect {size} fill="{fill}" stroke="{stroke}" stroke-width="1.2"/>'


def _text(x: float, y: float, text: str, size: float = TEXT, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"{extra}>{text}</text>'


def _arrow(path: str, colour: str, head: str, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="5 3.5"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes} marker-end="url(#{head})"/>'


def _stage_x(stage: int) -> float:
    return FIRST_X + stage * (STAGE_W + GAP)


def _stage(colours: Palette, stage: int) -> Iterator[str]:
    """A stage: its block, what the block learns from, and the loop of its gradient."""
    x, middle = _stage_x(stage), _stage_x(stage) + STAGE_W / 2
    left, right = middle - 24, middle + 24
    yield _box(x, STAGE_Y, STAGE_W, STAGE_H, colours.stage, colours.line, 10)
    yield _text(middle, STAGE_Y + 24, f"stage {stage}", extra=' font-weight="600"')
    for y, name in ((LOSS_Y, "local loss"), (HEAD_Y, "classifier" if stage == STAGES - 1 else "head")):
        yield _box(middle - 42, y, 84, PART_H, colours.head, colours.line)
        yield _text(middle, y + 19, name, SMALL)
    yield _box(x + 11, BLOCK_Y, STAGE_W - 22, BLOCK_H, colours.block, colours.line)
    yield _text(middle, BLOCK_Y + 27, f"block {stage}", SMALL)
    for begin, end in ((BLOCK_Y, HEAD_Y + PART_H), (HEAD_Y, LOSS_Y + PART_H)):
        yield _arrow(f"M{left:g} {begin:g} V{end + 1:g}", colours.line, "flow")
    for begin, end in ((LOSS_Y + PART_H, HEAD_Y), (HEAD_Y + PART_H, BLOCK_Y)):
        yield _arrow(f"M{right:g} {begin:g} V{end - 1:g}", colours.gradient, "gradient", dashed=True)


def _flow(colours: Palette) -> Iterator[str]:
    """What enters, what travels from stage to stage through a buffer, and what leaves."""
    yield _text(40, FLOW_Y - 26, "images", SMALL)
    yield _text(40, FLOW_Y - 9, "labels", SMALL)
    yield _arrow(f"M14 {FLOW_Y:g} H{FIRST_X + 10}", colours.line, "flow")
    for stage in range(STAGES - 1):
        begin, end = _stage_x(stage) + STAGE_W, _stage_x(stage + 1)
        buffer_x = (begin + end) / 2 - 9
        yield _arrow(f"M{begin - 11:g} {FLOW_Y:g} H{buffer_x - 2:g}", colours.line, "flow")
        yield _arrow(f"M{buffer_x + 18:g} {FLOW_Y:g} H{end + 10:g}", colours.line, "flow")
        for place in range(4):
            y = FLOW_Y - 32 + 16 * place
            yield _box(buffer_x, y, 18, 13, colours.held if place >= 2 - stage % 2 else colours.head, colours.line, 3)
        yield _text(buffer_x + 9, FLOW_Y - 42, "buffer", SMALL)
    end, logits_y = _stage_x(STAGES - 1) + STAGE_W, HEAD_Y + PART_H / 2
    yield _arrow(f"M{end - 19:g} {logits_y:g} H{WIDTH - 12}", colours.line, "flow")
    yield _text(end + 34, logits_y - 9, "logits", SMALL)


def _legend(colours: Palette) -> Iterator[str]:
    """What the two kinds of arrow carry."""
    yield _arrow(f"M{FIRST_X} {LEGEND_Y - 5} h34", colours.line, "flow")
    yield _text(FIRST_X + 44, LEGEND_Y, "activations and labels travel forward", SMALL, "start")
    yield _arrow(f"M{FIRST_X + 366} {LEGEND_Y - 5} h34", colours.gradient, "gradient", dashed=True)
    yield _text(FIRST_X + 410, LEGEND_Y, "gradients stay inside their stage", SMALL, "start")


def _strip(colours: Palette) -> Iterator[str]:
    """A row per stage, a cell per batch: after the first few batches all stages are busy, each on a batch of its own."""
    for stage in range(STAGES):
        y = STRIP_Y + stage * (CELL_H + 4)
        yield _text(STRIP_X - 10, y + 19, f"stage {stage}", SMALL, "end")
        for column in range(stage, COLUMNS):
            x, batch = STRIP_X + column * CELL_W, column - stage
            yield _box(x, y, CELL_W - 3, CELL_H, colours.batch_fill(batch), radius=4)
            yield _text(x + (CELL_W - 3) / 2, y + 19, str(batch), SMALL)
    x, height = STRIP_X + SNAPSHOT * CELL_W - 4, STAGES * (CELL_H + 4) + 4
    yield _box(x, STRIP_Y - 4, CELL_W + 5, height, "none", colours.text)
    base, end = STRIP_Y + STAGES * (CELL_H + 4) + 22, STRIP_X + COLUMNS * CELL_W - 3
    yield _text(STRIP_X, base, "time", SMALL, "start")
    yield _arrow(f"M{STRIP_X + 40} {base - 5} h60", colours.line, "flow")
    yield _text(end, base, "no bubble: once filled, all stages train all the time, each on a batch of its own", SMALL, "end")
