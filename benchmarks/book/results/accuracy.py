"""Accuracy of decoupled training against back-propagation (benchmarks.accuracy)."""

import statistics
from functools import partial
from typing import Any

from benchmarks.accuracy import CASES
from benchmarks.book.markdown import TO, percent, table
from benchmarks.book.result import Answer, Result
from benchmarks.book.results import methods


def _seeds(answer: Answer) -> str:
    counts = {len(runs) for runs in answer["runs"].values()}
    seeds = TO.join(str(count) for count in sorted(counts))
    return f"n = {seeds} seed{'s' if counts != {1} else ''}" + ("; means and ranges" if counts != {1} else "")


def _command(stem: str, answer: Answer, more: str = "") -> str:
    seeds = sorted({int(seed) for runs in answer["runs"].values() for seed in runs})
    any_run = next(iter(answer["runs"]["bp"].values()))
    config = any_run["command"].partition("--config ")[2].split()[0]
    data = "" if config == "configs/digits.yaml" else "data.name=image_folder data.root=FOLDER "
    return (
        f"python -m benchmarks.accuracy {data}{more}--config {config} \\\n"
        f"    --out benchmarks/results/{stem} --seeds {' '.join(map(str, seeds))} --cases {' '.join(answer['runs'])}"
    )


def _final(runs: dict[str, Any], digits: int = 2) -> str:
    values = [100 * run["accuracy"]["final"] for run in runs.values()]
    middle = f"{statistics.mean(values):.{digits}f}%"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}{TO}{max(values):.{digits}f})"


def _cifar10(answer: Answer) -> str:
    runs = {case: next(iter(found.values())) for case, found in answer["runs"].items()}
    rows = []
    for case, run in runs.items():
        heads = [percent(head) for head in run["accuracy"]["blocks"][:-1]]
        ensemble = percent(run["accuracy"]["ensemble"]) if heads else ""
        rows.append((CASES[case].label, _final(answer["runs"][case]), ", ".join(heads), ensemble, f"{run['train_s']:.0f} s"))
    first, slowed = runs["replay-slow1"]["stages"]
    gap = 100 * (runs["bp"]["accuracy"]["final"] - runs["fifo"]["accuracy"]["final"])
    return f"""
VGG8b at a quarter of its width, {len(runs["bp"]["evaluations"])} epochs, bf16, with the same data, budget and schedule in
every row. The images are a JPEG copy of CIFAR-10 and slightly lossy, so these figures do not compare with published ones.

{table(("trained by", "classifier", "heads of the blocks before", "ensemble", "training"), rows)}

DGL with FIFO buffers ends {gap:.2f} points below back-propagation.

In the last row stage 1 takes twice its time for every batch. Stage 0 is not held back: it waits for room
{percent(first["wait_output_fraction"])} of its time, trains for {first["train_s"]:.0f} s and then forwards batches with
frozen weights. Stage 1 reads each batch once, with a staleness of {slowed["staleness_mean"]:.3f} on average and
{slowed["staleness_max"]} at most; {slowed["dropped"]:,} batches are replaced unread. Another job shared the machine during
this run; its time is an overestimate.
"""


def _cifar10_headline(answer: Answer) -> tuple[str, str]:
    runs = answer["runs"]
    epochs = len(runs["bp"]["0"]["evaluations"])
    found = f"DGL in {len(runs['fifo']['0']['accuracy']['blocks'])} blocks {_final(runs['fifo'])}, with `conv` heads "
    found += f"{methods.final(methods.accuracy_of(methods.CIFAR10.read(), 'cross_entropy', 'conv'))}, back-propagation "
    return f"CIFAR-10, small VGG8b, {epochs} epochs", f"{found}{_final(runs['bp'])} ({_seeds(answer)})"


def _link_dtype(answer: Answer) -> str:
    rows = [(CASES[case].label, _final(runs), str(len(runs))) for case, runs in answer["runs"].items()]
    return f"""
`link.dtype` sends activations in fewer bits. Digits, VGG8b at a quarter of its width, `mlp_sr` heads, 4 blocks in 2
processes.

{table(("trained by", "accuracy of the classifier", "seeds"), rows)}

A handful of held-out images separates these rows: so few seeds do not resolve a cost of fewer bits.
"""


CIFAR10 = Result(
    "cifar10_vgg8b_small",
    "CIFAR-10 accuracy",
    _seeds,
    _cifar10,
    headline=_cifar10_headline,
    command=partial(_command, "cifar10_vgg8b_small"),
    shows_plot=True,
)
LINK_DTYPE = Result(
    "link_dtype_digits",
    "Accuracy with compressed links",
    _seeds,
    _link_dtype,
    command=partial(_command, "link_dtype_digits", more="head.name=mlp_sr "),
)
