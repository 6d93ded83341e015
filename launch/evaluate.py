"""What a trained network's heads can do: accuracy of every exit and of the ensemble, and leaving early.

    python launch/evaluate.py RUN [--data FOLDER] [--out RUN/evaluation] [section.key=value ...]

RUN is the folder of a run or of a checkpoint. Early exit answers at the first head that is confident enough. Confidences
are calibrated by a temperature per head, fitted on `data.calibration_samples` training samples that the run has kept
back; where it has kept none, they are the heads' own, and the table says so. Writes a JSON file and a plot.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    import bootstrap  # noqa: F401

from rich.console import Console
from rich.table import Table

from greedypipe.launch.checkpoints.manifest import parse_manifest
from greedypipe.launch.checkpoints.trained_network import find_checkpoint
from greedypipe.launch.config.loader import ConfigError, load_config
from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.exits import EarlyExit, calibration_error, collect, early_exit, exit_costs, fit_temperatures
from greedypipe.pipeline.recut import transferred_state
from greedypipe.workers.block_files import load_blocks
from greedypipe.workers.data.source import BatchSource

THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.01)
"""Above 1 nobody leaves early."""


def evaluate(checkpoint: Path, overrides: list[str]) -> dict[str, Any]:
    """Everything that the command prints, as numbers. Blocks while it runs the network.

    Raises:
        ConfigError: The data are missing, or an override is wrong.
    """
    plan = _plan_of(checkpoint, overrides)
    device = plan.placement.device_of(0, plan.config.placement)
    blocks = _load(plan, checkpoint)
    source = BatchSource(plan.config.data, plan.config.training.seed, plan.data)
    tests = collect(blocks, ((batch.images, batch.labels) for batch in source.test_batches()), device)
    temperatures = [1.0] * len(blocks)
    if plan.config.data.calibration_samples:
        kept_back = ((batch.images, batch.labels) for batch in source.calibration_batches())
        temperatures = fit_temperatures(collect(blocks, kept_back, device))
    costs = exit_costs(blocks, source.training_batch(0).images[:1].to(device))
    source.close()
    return {
        "checkpoint": str(checkpoint),
        "test_samples": len(tests.labels),
        "calibration_samples": plan.config.data.calibration_samples,
        "exits": [
            {
                "block": block.index,
                "after": block.layers[-1].name,
                "accuracy": accuracy,
                "temperature": temperature,
                "calibration_error": error,
                "cost": cost,
            }
            for block, accuracy, temperature, error, cost in zip(
                blocks, tests.accuracies, temperatures, calibration_error(tests, temperatures), costs, strict=True
            )
        ],
        "ensemble_accuracy": tests.ensemble_accuracy,
        "early_exit": [asdict(early_exit(tests, temperatures, costs, threshold)) for threshold in THRESHOLDS],
    }


def _plan_of(checkpoint: Path, overrides: list[str]) -> Plan:
    """The run's own configuration, in one process of this machine, without deliberate trouble."""
    saved = RunConfig.model_validate(parse_manifest(checkpoint).config).model_dump(mode="json", exclude={"debug"})
    own = [f"{section}.{key}={json.dumps(value)}" for section, keys in saved.items() for key, value in keys.items()]
    return make_plan(load_config(None, [*own, *overrides]), 1)


def _load(plan: Plan, checkpoint: Path) -> list[Block]:
    saved = load_blocks(checkpoint)
    device = plan.placement.device_of(0, plan.config.placement)
    blocks = [plan.blueprint.build_block(index, device) for index in range(plan.blueprint.num_blocks)]
    for block in blocks:
        block.load_state_dict(transferred_state(block, saved)[0])
    return blocks


def tables(found: dict[str, Any]) -> tuple[Table, Table]:
    """One line per exit, and one per threshold."""
    exits = Table(
        "exit",
        "after",
        "accuracy",
        "temperature",
        "calibration error",
        "multiply-adds",
        title_justify="left",
        title=f"every exit, {found['test_samples']:,} held-out samples",
    )
    for one in found["exits"]:
        exits.add_row(
            str(one["block"]),
            one["after"],
            f"{one['accuracy']:.4f}",
            f"{one['temperature']:.3f}",
            f"{one['calibration_error']:.4f}",
            f"{one['cost']:.1%}",
        )
    exits.add_row("ensemble", "", f"{found['ensemble_accuracy']:.4f}", "", "", "")
    count = found["calibration_samples"]
    title = (
        f"leaving early, calibrated on {count:,} samples"
        if count
        else ("leaving early; confidences are not calibrated: the run kept no data.calibration_samples back")
    )
    early = Table("confidence", "accuracy", "multiply-adds", "samples by exit", title=title, title_justify="left")
    for point in (EarlyExit(**one) for one in found["early_exit"]):
        confidence = f"{point.threshold:g}" if point.threshold <= 1 else "nobody leaves"
        shares = " ".join(f"{share:.0%}" for share in point.shares)
        early.add_row(confidence, f"{point.accuracy:.4f}", f"{point.cost:.1%}", shares)
    return exits, early


def plot(found: dict[str, Any], path: Path) -> None:
    """Accuracy over mean cost: early exit as a line, single exits as dots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    points = sorted(found["early_exit"], key=lambda one: one["cost"])
    axes.plot([100 * one["cost"] for one in points], [100 * one["accuracy"] for one in points], "o-", label="early exit")
    for one in found["exits"]:
        point = 100 * one["cost"], 100 * one["accuracy"]
        axes.plot(*point, "ks", label="one exit for all" if one["block"] == 0 else None)
        axes.annotate(f"after {one['after']}", point, xytext=(5, -12), textcoords="offset points")
    axes.axhline(100 * found["ensemble_accuracy"], color="0.6", linestyle=":", label="ensemble of all heads")
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
    parser.add_argument("--data", help="folder of the data, where it is not the run's own data.root")
    parser.add_argument("--out", type=Path, help="where to write, without suffix: .json and .png (default: RUN/evaluation)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    overrides = [*arguments.overrides, *([f"data.root={arguments.data}"] if arguments.data else [])]
    try:
        found = evaluate(find_checkpoint(arguments.run), overrides)
    except (ConfigError, ValueError) as error:
        sys.exit(f"greedypipe: {error}")
    Console(width=None if sys.stdout.isatty() else 120).print(*tables(found))
    out = arguments.out or arguments.run / "evaluation"
    out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    try:
        plot(found, out.with_suffix(".png"))
    except ImportError:
        print("no plot: it needs matplotlib (`pip install matplotlib`)")


if __name__ == "__main__":
    main()
