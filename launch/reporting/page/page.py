"""The report of a run as one page of HTML."""

from html import escape

from greedypipe.launch.reporting.page import figures
from greedypipe.launch.reporting.page import words as tables
from greedypipe.launch.reporting.page.record import RunRecord
from greedypipe.launch.reporting.page.style import CSS
from greedypipe.launch.reporting.page.timeline import timeline


def page(run: RunRecord) -> str:
    """The whole page as HTML."""
    title = escape(f"{tables.headline(run)} - {run.folder.name}")
    setup = _section("What it ran on", tables.setup_table(run))
    sections = [_learning(run), _time(run), _timeline(run), _buffers(run), setup]
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>{CSS}</style></head>
<body><main>
<header><div class="run">{escape(run.folder.name)}</div><h1>{escape(tables.headline(run))}</h1>
<p class="method">{escape(tables.method(run))}</p></header>
{tables.failure(run)}
<div class="cards">{tables.cards(run)}</div>
{"".join(sections)}
<footer>Words underlined with dots explain themselves under the mouse; so do the parts of every figure.</footer>
</main></body></html>
"""


def _section(title: str, content: str, lead: str = "") -> str:
    return f"<section><h2>{title}</h2>{f'<p class=lead>{escape(lead)}</p>' if lead else ''}{content}</section>"


def _figure(title: str, content: str) -> str:
    return f"<div><h3>{escape(title)}</h3>{content}</div>"


def _learning(run: RunRecord) -> str:
    pair = [
        _figure("Accuracy on the held-out part", figures.accuracy_figure(run)),
        _figure("Local loss in training", figures.loss_figure(run)),
    ]
    lead = "Every block has a head and learns by its method; the last head is the network's classifier."
    return _section("Learning", f'<div class="pair">{"".join(pair)}</div>', lead if run.num_blocks > 1 else "")


def _time(run: RunRecord) -> str:
    content = figures.time_bars(run) + f'<div class="gap">{tables.stage_table(run)}</div>'
    content += f'<p class="note">{tables.MEMORY_NOTE}</p>'
    if predicted := tables.prediction(run):
        content += f'<div class="gap">{_figure("Predicted and measured", predicted)}</div>'
    return _section("Where the training time went", content, tables.bottleneck(run))


def _timeline(run: RunRecord) -> str:
    return _section("A few batches on one clock", timeline(run))


def _buffers(run: RunRecord) -> str:
    """What varies over the run and, where there are links, what waits between the stages."""
    pair = [_figure("Throughput", figures.throughput_figure(run))]
    if len(run.stages) > 1:
        pair.append(_figure("Occupancy of the buffer before a stage, mean so far", figures.occupancy_figure(run)))
    histograms = "".join(_figure(title, chart) for title, chart in figures.staleness_figures(run))
    if histograms:
        histograms = (
            '<div class="gap"><h2>Staleness</h2><p class="lead">How many newer items the producer had delivered when an '
            f'item was read.</p><div class="many">{histograms}</div></div>'
        )
    return _section("Over the run", f'<div class="pair">{"".join(pair)}</div>{histograms}')
