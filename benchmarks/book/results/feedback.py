"""What feedback costs: methods beside DGL, and throughput over delay and latency (benchmarks.feedback)."""

from benchmarks.book.markdown import percent, setup, spread, table
from benchmarks.book.result import Answer, Result

WITHIN = 0.1
"""Of the formula's throughput."""


def _feedback(answer: Answer) -> str:
    sections = {"costs": _costs, "latency": _latency}
    return "\n\n".join(sections[name](part) for name, part in answer["parts"].items())


def _costs(part: Answer) -> str:
    rows = [
        (
            f"`{row['method']}`",
            row["formula"],
            *(f"{row[key]:.2f}" for key in ("formula_over_dgl", "counted_over_dgl")),
            *(spread(row[key], ".2f") for key in ("step_over_dgl", "throughput_over_dgl")),
            ", ".join(percent(share, 0) for share in row["wait_feedback"]),
            ", ".join(f"{size / 1e6:+,.0f}" for size in row["peak_bytes_over_dgl"]),
        )
        for row in part["rows"]
    ]
    header = (
        "method",
        "formula",
        "cost / DGL's by formula",
        "counted",
        "own step, measured",
        "samples/s / DGL's",
        "waits for feedback, by stage",
        "peak memory beside DGL's, MB",
    )
    return f"""
Every method with feedback at its default keys and a delay of 1, and DGL (`cross_entropy`): four blocks in two processes on
two cores, synthetic data. {setup(part["asked"]["settings"])}. Costs are those of the slowest stage over DGL's.

{table(header, rows)}

In the formulas f is a forward pass of the layers, h of the head, s of the synthesiser, i of the inverse, a of the next
block's first layer, n of the next block with its head; a backward pass counts for two. Counted are the operations of one
turn by torch's formulas, of convolutions and matrix products alone; measured is the slowest stage's own seconds per batch,
without waits. Counts exceed the formulas because DGL is cheaper than its own: no block wants the gradient of its input, and
its first layer's backward pass is half as long. On a network as narrow as this, synthesisers of three 5 x 5 convolutions
cost more than the blocks.
"""


def _latency(part: Answer) -> str:
    rows = [
        (
            str(row["stages"]),
            str(row["delay"]),
            f"{1000 * row['latency_s']:.0f}",
            f"{1000 * row['formula_s']:.1f}",
            f"{1000 * row['measured_s']['median']:.1f}",
            spread(row["throughput_over_formula"], ".2f"),
        )
        for row in part["rows"]
    ]
    header = ("stages", "`feedback.delay`", "latency, ms", "ms per batch by formula", "measured", "throughput / formula's")
    ratios = [row["throughput_over_formula"]["median"] for row in part["rows"]]
    limit = percent(WITHIN, 0)
    holds = all(abs(1 - ratio) <= WITHIN for ratio in ratios)
    verdict = f"all are within {limit}" if holds else f"**not all are within {limit}**"
    return f"""
Throughput over delay and latency: stages that sleep for {1000 * part["rows"][0]["turn_s"]:.0f} ms per batch (C), with the
real loops, inboxes, lines and links between threads. What a stage sends, forward and back, can be read `l` later. The
slowest circuit of K stages at a delay D sets the pace:

```
seconds per batch = max over h = 0 .. K - 1 of ((h + 1) C + 2 h l) / (h D + 1)
```

{table(header, rows)}

Of the formula's throughput, {verdict} ({min(ratios):.2f} to {max(ratios):.2f}). A delay of 1 + 2 l / C gives full speed at
any depth; a delay of 0 gives that of one device, and less with latency.
"""


FEEDBACK = Result(
    "feedback",
    "What feedback costs",
    lambda answer: (
        f"n = {min(part['rows'][0]['repeats'] for part in answer['parts'].values())} interleaved repeats; medians and ranges"
    ),
    _feedback,
)
