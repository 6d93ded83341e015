"""How a report looks."""

CSS = """
:root { --ink: #22262d; --soft: #6b7280; --line: #e4e6ea; --paper: #ffffff; --ground: #f5f6f8; --accent: #31508f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 36px 24px 56px; }
header .run { color: var(--soft); font-size: 13px; letter-spacing: .02em; }
h1 { font-size: 30px; line-height: 1.2; margin: 2px 0 4px; font-weight: 650; letter-spacing: -.01em; }
h2 { font-size: 17px; margin: 0 0 4px; font-weight: 640; }
h3 { font-size: 13.5px; margin: 0 0 8px; font-weight: 600; color: var(--ink); }
.method, .lead { color: var(--soft); margin: 0 0 12px; }
.lead { max-width: 110ch; text-wrap: pretty; }
section, .card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; }
section { padding: 22px 24px; margin-top: 18px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 18px; }
.card { padding: 13px 18px 12px; flex: 1 1 130px; max-width: 250px; }
.card b { display: block; font-size: 25px; line-height: 1.2; font-weight: 640; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 13px; }
.failure { margin-top: 18px; background: #fdf0ec; border: 1px solid #efc2b3; border-radius: 10px; padding: 13px 18px; }
.failure b { color: #a53a17; margin-right: 8px; text-transform: capitalize; }
.pair { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); gap: 26px 34px; }
.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 22px 28px; }
.pair > div, .many > div { display: flex; flex-direction: column; } .pair svg, .many svg { margin-top: auto; }
.many svg { max-width: 400px; } .wide > svg { min-width: 820px; }
.gap { margin-top: 24px; }
.legend { display: flex; flex-wrap: wrap; gap: 3px 16px; font-size: 12.5px; color: #3f4650; margin: 2px 0 8px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; vertical-align: -1px; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit; fill: #4b525d; }
svg .tick { font-size: 11.5px; font-variant-numeric: tabular-nums; }
svg .title { font-size: 11.5px; fill: #6b7280; }
svg .stage { font-size: 13px; font-weight: 600; fill: #22262d; }
svg .inside { font-size: 11px; fill: #16294a; text-anchor: middle; pointer-events: none; }
svg .grid { stroke: #eaecef; stroke-width: 1; }
svg .base { stroke: #b9bec6; stroke-width: 1; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg rect.followed { stroke: #1b1f26; stroke-width: 1.6; }
svg .arrow { fill: none; stroke: #9aa1ab; stroke-width: 1; opacity: .75; }
svg .arrow.followed { stroke: #1b1f26; stroke-width: 1.7; opacity: 1; }
.bars { display: grid; grid-template-columns: max-content 1fr; gap: 8px 16px; align-items: center; margin-top: 6px; }
.bars .name { font-weight: 600; font-size: 13.5px; }
small { color: var(--soft); font-weight: 400; font-size: .92em; }
.bar { display: flex; height: 25px; border-radius: 5px; overflow: hidden; background: var(--line); }
.bar span { color: #1b2330; font-size: 12px; line-height: 25px; text-align: center; white-space: nowrap; overflow: hidden; }
.bar span:first-child { color: #fff; }
/* Shades at the edges beyond which a wide table or figure can be scrolled. */
.wide { overflow-x: auto; background:
  linear-gradient(90deg, var(--paper) 40%, transparent) 0 0 / 36px 100% no-repeat local,
  linear-gradient(270deg, var(--paper) 40%, transparent) 100% 0 / 36px 100% no-repeat local,
  linear-gradient(90deg, #0002, transparent) 0 0 / 12px 100% no-repeat scroll,
  linear-gradient(270deg, #0002, transparent) 100% 0 / 12px 100% no-repeat scroll; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
.figures { width: 100%; font-size: 12.5px; }
.figures.small { width: auto; }
.figures th { color: var(--soft); font-weight: 500; border-bottom: 1px solid #c9cdd4; white-space: nowrap; }
.figures th[title] { text-decoration: underline dotted #b9bec6; text-underline-offset: 3px; cursor: help; }
.figures th, .figures td { text-align: right; padding: 6px 0 6px 11px; white-space: nowrap; }
.figures th:first-child, .figures td:first-child { text-align: left; padding-left: 0; }
.figures td { border-bottom: 1px solid var(--line); }
.figures tr:last-child td { border-bottom: 0; }
.setup th { text-align: left; font-weight: 500; color: var(--soft); padding: 3px 22px 3px 0; vertical-align: top; }
.setup td { overflow-wrap: anywhere; }
.note, .missing { color: var(--soft); font-size: 13px; margin: 10px 0 0; }
code, pre { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { background: #eef0f3; border-radius: 4px; padding: 1px 5px; }
pre { background: var(--ground); border-radius: 8px; padding: 14px 18px; columns: 2; margin: 8px 0 0; }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--accent); }
footer { color: var(--soft); font-size: 12.5px; margin-top: 18px; }
@media (max-width: 640px) {
  main { padding: 22px 12px 40px; } section { padding: 18px 14px; } h1 { font-size: 25px; }
  /* Charts shrink with the page; their words should not. */
  .pair svg .tick, .pair svg .title { font-size: 14.5px; }
  .figures th:first-child, .figures td:first-child { position: sticky; left: 0; padding-right: 6px;
    background: var(--paper); }
  .bars { grid-template-columns: 1fr; gap: 3px; } .bars .bar { margin-bottom: 8px; }
  pre { columns: 1; overflow-x: auto; }
}
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
"""


DEPTH = ("#31508f", "#1d879b", "#4ca35d", "#d59f1c", "#cb5a35", "#87386f")
"""From the first block to the last; blocks in between get mixtures of two neighbours."""


SPAN_COLOURS = {
    "data": "#8e9aab",
    "forward": "#2f5fa3",
    "learn": "#7ba4dd",
    "hand_on": "#a9bfdc",
    "send": "#2b9d80",
    "evaluate": "#a98fce",
    "wait_input": "#f3cf72",
    "wait_room": "#ea9a78",
    "wait_feedback": "#d9799a",
}


SPAN_WORDS = {
    "data": "making the batch",
    "forward": "forward",
    "learn": "learn (head, loss, backward, step)",
    "hand_on": "hand on",
    "send": "send (encode and copy)",
    "evaluate": "evaluate",
    "wait_input": "wait for input",
    "wait_room": "wait for room",
    "wait_feedback": "wait for feedback",
}


BUSY = "#4577bd"


TOGETHER = "#30343b"
"""All heads together."""


def depth_colour(index: int, count: int) -> str:
    """Colour of block `index` of `count`."""
    position = index / max(count - 1, 1) * (len(DEPTH) - 1)
    below = min(int(position), len(DEPTH) - 2)
    low, high = (_channels(DEPTH[below + offset]) for offset in (0, 1))
    mixed = (round(one + (two - one) * (position - below)) for one, two in zip(low, high, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _channels(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
