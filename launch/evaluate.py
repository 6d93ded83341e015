"""Measures a trained network's exits: accuracy of every head and of the ensemble, and early exit.

    greedypipe evaluate RUN [--data FOLDER] [--out RUN/evaluation] [section.key=value ...]

RUN is the folder of a run or of a checkpoint. Early exit answers at the first head that is confident enough. Confidences
are calibrated with a temperature per head, fitted on the `data.calibration_samples` training samples that the run has kept
back. If it has kept none, they are not calibrated, which the table states. Writes a JSON file and a plot.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__" and not __package__:
    import bootstrap  # noqa: F401

from rich.table import Table

from greedypipe.launch.checkpoints.trained_blocks import plan_of, trained_blocks
from greedypipe.launch.checkpoints.trained_network import find_checkpoint
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.reporting.console import standard_output
from greedypipe.pipeline.exits import EarlyExit, calibration_error, collect, early_exit, exit_costs, fit_temperatures
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.telemetry.phrases import shown

THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.01)
"""Above 1 no sample leaves early."""


@dataclass(frozen=True)
class Exit:
    """Figures of one head if all samples leave at it.

    Attributes:
        block: Index of its block; `after` is the name of that block's last layer.
        accuracy: Accuracy on the held-out part, in [0, 1].
        temperature: Temperature that calibrates its confidences; 1 if they are not calibrated.
        calibration_error: Expected calibration error of the confidences, after calibration.
        cost: Multiply-adds relative to the whole network without auxiliary heads.
    """

    block: int
    after: str
    accuracy: float
    temperature: float
    calibration_error: float
    cost: float


@dataclass(frozen=True)
class Findings:
    """All numbers that the command prints and writes."""

    checkpoint: str
    test_samples: int
    calibration_samples: int
    exits: list[Exit]
    ensemble_accuracy: float
    early_exit: list[EarlyExit]


def evaluate(checkpoint: Path, overrides: list[str]) -> Findings:
    """Measures a checkpoint's heads on the held-out part. Blocks while the network runs.

    Raises:
        ConfigError: The data are missing, or an override is wrong.
    """
    plan = plan_of(checkpoint, overrides)
    device = plan.placement.device_of(0, plan.config.placement)
    blocks = trained_blocks(plan, checkpoint)
    source = BatchSource(plan.config.data, plan.config.training.seed, plan.data)
    tests = collect(blocks, ((batch.images, batch.labels) for batch in source.test_batches()))
    temperatures = [1.0] * len(blocks)
    if plan.config.data.calibration_samples:
        kept_back = ((batch.images, batch.labels) for batch in source.calibration_batches())
        temperatures = fit_temperatures(collect(blocks, kept_back))
    costs = exit_costs(blocks, source.training_batch(0).images[:1].to(device))
    source.close()
    measured = zip(blocks, tests.accuracies, temperatures, calibration_error(tests, temperatures), costs, strict=True)
    return Findings(
        checkpoint=str(checkpoint),
        test_samples=len(tests.labels),
        calibration_samples=plan.config.data.calibration_samples,
        exits=[Exit(block.index, block.layers[-1].name, *figures) for block, *figures in measured],
        ensemble_accuracy=tests.ensemble_accuracy,
        early_exit=[early_exit(tests, temperatures, costs, threshold) for threshold in THRESHOLDS],
    )


def tables(found: Findings) -> tuple[Table, Table]:
    """One line per exit, and one per threshold."""
    exits = Table(
        "exit",
        "after",
        "accuracy",
        "temperature",
        "calibration error",
        "multiply-adds",
        title_justify="left",
        title=f"every exit, {found.test_samples:,} held-out samples",
    )
    for one in found.exits:
        exits.add_row(
            str(one.block),
            one.after,
            f"{one.accuracy:.4f}",
            f"{one.temperature:.3f}",
            f"{one.calibration_error:.4f}",
            f"{one.cost:.1%}",
        )
    exits.add_row("ensemble", "", f"{found.ensemble_accuracy:.4f}", "", "", "")
    count = found.calibration_samples
    title = (
        f"early exit, calibrated on {count:,} samples"
        if count
        else ("early exit; confidences are not calibrated: the run kept no data.calibration_samples back")
    )
    early = Table("confidence", "accuracy", "multiply-adds", "samples by exit", title=title, title_justify="left")
    for point in found.early_exit:
        confidence = f"{point.threshold:g}" if point.threshold <= 1 else "no early exit"
        shares = " ".join(f"{share:.0%}" for share in point.shares)
        early.add_row(confidence, f"{point.accuracy:.4f}", f"{point.cost:.1%}", shares)
    return exits, early


def plot(found: Findings, path: Path) -> None:
    """Accuracy over mean cost: early exit as a line, single exits as dots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    points = sorted(found.early_exit, key=lambda one: one.cost)
    axes.plot([100 * one.cost for one in points], [100 * one.accuracy for one in points], "o-", label="early exit")
    for one in found.exits:
        point = 100 * one.cost, 100 * one.accuracy
        axes.plot(*point, "ks", label="one exit for all" if one.block == 0 else None)
        axes.annotate(f"after {one.after}", point, xytext=(5, -12), textcoords="offset points")
    axes.axhline(100 * found.ensemble_accuracy, color="0.6", linestyle=":", label="ensemble of all heads")
    axes.set_xlabel("mean multiply-adds per sample, % of the network without auxiliary heads")
    axes.set_ylabel("accuracy, %")
    axes.margins(x=0.1, y=0.12)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run or of a checkpoint")
    parser.add_argument("--data", help="folder of the data (default: the run's data.root)")
    parser.add_argument("--out", type=Path, help="files to write, without .json and .png (default: RUN/evaluation)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    overrides = [*arguments.overrides, *([f"data.root={arguments.data}"] if arguments.data else [])]
    try:
        found = evaluate(find_checkpoint(arguments.run), overrides)
    except (ConfigError, ValueError) as error:
        sys.exit(f"greedypipe: {shown(error)}")
    standard_output(120).print(*tables(found))
    out = arguments.out or arguments.run / "evaluation"
    out.with_suffix(".json").write_text(json.dumps(asdict(found), indent=1) + "\n")
    try:
        plot(found, out.with_suffix(".png"))
    except ImportError:
        print("no plot: it needs matplotlib (`pip install matplotlib`)")


if __name__ == "__main__":
    main()
