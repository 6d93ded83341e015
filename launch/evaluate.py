"""Measures a trained network's exits: accuracy of every head and of the ensemble, and early exit.

    greedypipe evaluate RUN [--data FOLDER] [--out NAME] [section.key=value ...]

RUN is the folder of a run or of a checkpoint. The heads are measured on the test part of the run's data or, with --data, of
another folder, whose classes are matched by name; a folder without test/ or val/ is taken whole.

Early exit answers at the first head that is confident enough. Confidences are calibrated with a temperature per head,
fitted on the `data.calibration_samples` training samples that the run has kept back. If it has kept none, they are not
calibrated, which the table states. Writes NAME.json and a plot, NAME.png; no file is replaced.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__" and not __package__:
    import bootstrap  # noqa: F401

import torch
from rich.table import Table
from torch import Tensor

from greedypipe.launch.checkpoints.trained_blocks import plan_of, trained_blocks
from greedypipe.launch.checkpoints.trained_network import find_checkpoint
from greedypipe.launch.config.command_line import CommandLine, command, end, refuse, user_path
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.launch.recovery.exit_codes import FAILED
from greedypipe.launch.reporting.console import standard_output
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.exits import EarlyExit, calibration_error, collect, early_exit, exit_costs, fit_temperatures
from greedypipe.workers.atomic import reason_of, replacing, write_atomically
from greedypipe.workers.data.config import DataConfig
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.data.sets.registry import open_data
from greedypipe.workers.data.source import BatchSource, LoadedBatch, held_out_batches
from greedypipe.workers.output import shown, some

THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.01)
"""Above 1 no sample leaves early."""


@dataclass(frozen=True)
class Exit:
    """Figures of one head if all samples leave at it.

    Attributes:
        block: Index of its block; `after` is the name of that block's last layer.
        accuracy: Accuracy on the test part, in [0, 1].
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
    """All numbers that the command prints and writes.

    Attributes:
        data: Name and folder of the data that were measured on.
        class_samples: Test samples by class, of all classes of the network.
        notes: What a user should know of the data, in lines.
    """

    checkpoint: str
    data: str
    class_samples: dict[str, int]
    notes: list[str]
    test_samples: int
    calibration_samples: int
    exits: list[Exit]
    ensemble_accuracy: float
    early_exit: list[EarlyExit]


def evaluate(checkpoint: Path, overrides: list[str], folder: str | Path | None = None) -> Findings:
    """Measures a checkpoint's heads on the test part of the run's data, or of another folder. Blocks for the network.

    Raises:
        ValueError: One line: the data are missing, have a class that the network does not know or do not suit it; an
            override is wrong, or a head would not be trained.
    """
    plan = plan_of(checkpoint, overrides)
    blocks = trained_blocks(plan, checkpoint)
    own, trained = plan.config.data, plan.data
    measured_on = plan_of(checkpoint, [*overrides, *_other_data(own, folder)]).config.data if folder else own
    part = open_data(measured_on).load_test_for(trained)
    tests = collect(blocks, _pairs(held_out_batches(measured_on, part, trained)))
    temperatures, calibrated = _calibrate(blocks, plan, is_optional=folder is not None)
    costs = exit_costs(blocks, torch.zeros(1, *trained.input_shape, device=blocks[0].device))
    figures = zip(blocks, tests.accuracies, temperatures, calibration_error(tests, temperatures), costs, strict=True)
    counts = tests.labels.bincount(minlength=trained.num_classes).tolist()
    return Findings(
        checkpoint=str(checkpoint),
        data=" ".join([measured_on.name, getattr(measured_on, "root", "")]).strip(),
        class_samples=dict(zip(trained.classes, counts, strict=True)),
        notes=[*part.notes, *([] if folder else _changes(trained, len(part.store)))],
        test_samples=len(tests.labels),
        calibration_samples=calibrated,
        exits=[Exit(block.index, block.layers[-1].name, *numbers) for block, *numbers in figures],
        ensemble_accuracy=tests.ensemble_accuracy,
        early_exit=[early_exit(tests, temperatures, costs, threshold) for threshold in THRESHOLDS],
    )


def _other_data(own: DataConfig, folder: str | Path) -> list[str]:
    """The overrides by which a folder takes the place of the run's own data: all of it, where it is not split."""
    return [f"data.root={json.dumps(str(folder))}", *(["data.test_share=0"] if hasattr(own, "test_share") else [])]


def _calibrate(blocks: list[Block], plan: Plan, is_optional: bool) -> tuple[list[float], int]:
    """Temperatures of the heads, and on how many samples of the run's own data they were fitted: 0 where it has kept none
    back or, if that is allowed, where its data are gone."""
    uncalibrated, count = [1.0] * len(blocks), plan.config.data.calibration_samples
    if not count:
        return uncalibrated, 0
    try:
        with BatchSource(plan.config.data, plan.config.training.seed, plan.data) as source:
            return fit_temperatures(collect(blocks, _pairs(source.calibration_batches()))), count
    except ValueError:
        if not is_optional:
            raise
        return uncalibrated, 0


def _changes(trained: DataInfo, test_samples: int) -> list[str]:
    if test_samples == trained.test_samples:
        return []
    return [f"the data have changed since: {test_samples:,} test samples, {trained.test_samples:,} in the run"]


def _pairs(batches: Iterable[LoadedBatch]) -> Iterator[tuple[Tensor, Tensor]]:
    return ((batch.images, batch.labels) for batch in batches)


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
        title=f"every exit, {found.test_samples:,} test samples of {found.data}",
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
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    pyplot.close(figure)


@command
def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("run", type=user_path, help="the folder of a run or of a checkpoint")
    parser.add_argument(
        "--data", type=user_path, metavar="FOLDER", help="measure on this folder instead of the run's data.root"
    )
    parser.add_argument(
        "--out", type=user_path, metavar="NAME", help="write NAME.json and NAME.png (default: RUN/evaluation)"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_intermixed_args()
    try:
        out = _free_name(arguments.run, arguments.out)
        found = evaluate(find_checkpoint(arguments.run), arguments.overrides, arguments.data)
    except (ValueError, ConnectionError) as error:
        refuse(error)
    standard_output(120).print(*tables(found))
    for line in [*found.notes, *_absent(found)]:
        print(shown(f"note: {line}"))
    try:
        path = _write(found, out)
    except OSError as error:
        end(f"{error.filename or out} cannot be written: {reason_of(error)}", FAILED)
    print(shown(path))


def _write(found: Findings, out: Path) -> Path:
    """Writes the numbers and a plot of them; returns the file of the numbers.

    Raises:
        OSError: The disk refuses; names the file.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    path = _with(out, ".json")
    write_atomically(path, json.dumps(asdict(found), indent=1) + "\n")
    try:
        plot(found, _with(out, ".png"))
    except ImportError:
        print("no plot: it needs matplotlib (`pip install matplotlib`)")
    return path


def _free_name(run: Path, out: Path | None) -> Path:
    """The name of the files without suffix; of those in a run's folder the first that is free.

    Raises:
        ValueError: A name was asked for that is taken.
    """
    if out is not None:
        name = out.with_suffix("") if out.suffix in (".json", ".png") else out
        if taken := [path for suffix in (".json", ".png") if (path := _with(name, suffix)).exists()]:
            raise ValueError(f"--out: {taken[0]} exists already; take another name or remove it")
        return name
    names = (run / ("evaluation" if number == 1 else f"evaluation-{number}") for number in itertools.count(1))
    return next(name for name in names if not _with(name, ".json").exists())


def _with(name: Path, suffix: str) -> Path:
    return name.with_name(f"{name.name}{suffix}")


def _absent(found: Findings) -> list[str]:
    absent = [name for name, count in found.class_samples.items() if not count]
    return [f"no test sample of the classes {some(absent)}: these figures say nothing about them"] if absent else []


if __name__ == "__main__":
    main()
