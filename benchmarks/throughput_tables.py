"""Tables and the plot of benchmarks.throughput."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.engines.timing import spread
from benchmarks.throughput_rows import Section

COLOURS = {"back-propagation": "C0", "one process": "C7", "torch pipelining": "C1", "greedypipe": "C2", "bound": "0.6"}


def answer_of(section: Section, repeats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything about a section that goes into the JSON: medians and ranges, and every repeat as it was."""
    rows = []
    for row in section.rows:
        values = [repeat["rates"][row.name] for repeat in repeats if row.name in repeat["rates"]]
        entry: dict[str, Any] = {"name": row.name, "group": row.group, "repeats": len(values)}
        wrong = [value for value in values if isinstance(value, str)]
        rows.append(entry | ({"error": wrong[0]} if wrong else {"samples_per_s": spread(values)}))
    figures = []
    for figure in section.figures:
        values = [figure.value(_numbers(repeat["rates"])) for repeat in repeats]
        figures.append({"name": figure.name, "target": figure.target, "ratio": spread(values), "repeats": values})
    case = section.case
    return {
        "settings": list(case.overrides),
        "steps": case.steps,
        "warmup_steps": case.warmup_steps,
        "rows": rows,
        "figures": figures,
        "repeats": list(repeats),
    }


def _numbers(rates: Mapping[str, float | str]) -> dict[str, float]:
    return {name: rate for name, rate in rates.items() if not isinstance(rate, str)}


def rates_table(name: str, found: Mapping[str, Any]) -> Table:
    """One line per row."""
    table = Table("group", "row", "samples/s", "range", "repeats", title=name, title_justify="left", title_style="bold")
    for row, following in zip(found["rows"], [*found["rows"][1:], None], strict=True):
        rate = row.get("samples_per_s")
        cells = [f"{rate['median']:,.1f}", f"{rate['min']:,.1f} .. {rate['max']:,.1f}"] if rate else ["cannot", row["error"]]
        table.add_row(
            row["group"],
            row["name"],
            *cells,
            str(row["repeats"]),
            end_section=following is None or following["group"] != row["group"],
        )
    return table


def figures_table(found: Mapping[str, Any]) -> Table:
    """One line per figure, with what it should reach."""
    table = Table("figure (per repeat, then median)", "measured", "range", "target", "")
    for figure in found["figures"]:
        ratio, target = figure["ratio"], figure["target"]
        verdict = "" if target is None else "reached" if ratio["median"] >= target else "missed"
        table.add_row(
            figure["name"],
            f"{ratio['median']:.3f}",
            f"{ratio['min']:.3f} .. {ratio['max']:.3f}",
            "" if target is None else f">= {target}",
            verdict,
        )
    return table


def profile_table(found: Mapping[str, Any]) -> Table:
    """Where the time of our runs went: medians over the repeats, per stage."""
    table = Table("run", "stage", "own ms/batch", "wait in", "wait out", "send ms/batch", "transport")
    runs = [repeat["stages"] for repeat in found["repeats"]]
    for name in runs[0]:
        for stages in zip(*(run[name] for run in runs if name in run), strict=True):
            messages = max(stages[0]["link"]["messages"], 1)
            table.add_row(
                name,
                str(stages[0]["stage"]),
                f"{1e3 * _median(stages, 'step_time_s'):,.2f}",
                f"{_median(stages, 'wait_input_fraction'):.1%}",
                f"{_median(stages, 'wait_output_fraction'):.1%}",
                f"{1e3 * statistics.median(stage['link']['send_s'] for stage in stages) / messages:.2f}",
                stages[0]["link"]["transport"],
            )
    return table


def _median(stages: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.median(stage[key] for stage in stages)


def plot(answer: Mapping[str, Any], path: Path) -> None:
    """A panel per section, a bar per row, the range as a whisker."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    sections = answer["sections"]
    shown = {name: [row for row in found["rows"] if "samples_per_s" in row] for name, found in sections.items()}
    figure, panels = pyplot.subplots(
        len(shown),
        1,
        figsize=(9, 1.2 + 0.27 * sum(len(rows) + 3 for rows in shown.values())),
        layout="constrained",
        squeeze=False,
        height_ratios=[len(rows) + 1 for rows in shown.values()],
    )
    for axes, (name, rows) in zip(panels[:, 0], shown.items(), strict=True):
        middle = [row["samples_per_s"]["median"] for row in rows]
        whiskers = [
            [value - row["samples_per_s"]["min"] for value, row in zip(middle, rows, strict=True)],
            [row["samples_per_s"]["max"] - value for value, row in zip(middle, rows, strict=True)],
        ]
        axes.barh(
            [row["name"] for row in rows],
            middle,
            xerr=whiskers,
            color=[COLOURS[row["group"]] for row in rows],
            ecolor="0.2",
            capsize=2,
            height=0.75,
        )
        for position, value in enumerate(middle):
            # At the foot of the bar: its end is where the whisker lies.
            axes.text(0, position, f"  {value:,.0f}", va="center", ha="left", fontsize=7, color="white")
        axes.margins(y=0.01)
        axes.invert_yaxis()
        axes.set_title(name, loc="left", fontsize=10, fontweight="bold")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1, 0].set_xlabel("samples/s: median, range as whisker", fontsize=9)
    handles = [Patch(color=colour, label=group) for group, colour in COLOURS.items()]
    figure.legend(handles=handles, fontsize=8, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=120)
