"""Where a run begins: with fresh parameters, or at a checkpoint of its own folder or of another run."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greedypipe.launch.checkpoints.data_identity import check_same_data
from greedypipe.launch.checkpoints.folder_lock import FolderLock
from greedypipe.launch.checkpoints.manifest import (
    MANIFEST,
    Damaged,
    Manifest,
    Outdated,
    name_of,
    newest_valid,
    parse_manifest,
    read_manifest,
    search,
)
from greedypipe.launch.checkpoints.retention import renamed, set_aside
from greedypipe.launch.checkpoints.run_folder import BEGINNING, claim_folder, newest_folder
from greedypipe.launch.checkpoints.trim_records import forget_records, keep_evaluations, keep_metrics
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.pipeline.partition import AUTO, PartitionConfig
from greedypipe.workers.atomic import reason_of, write_atomically
from greedypipe.workers.block_files import FINAL
from greedypipe.workers.output import shown
from greedypipe.workers.telemetry.records import Beginning
from greedypipe.workers.telemetry.results import RunEnd, Summary
from greedypipe.workers.telemetry.summary_file import read_summary

AUTOMATIC = "auto"
METRICS = "metrics"
ANEW = "nothing to resume: the run begins anew"
FIXED = ("data", "model", "head", "method", "optimizer", "auxiliary", "feedback", "training")
"""Sections that a resumed run must share with the checkpoint's."""
FREE = {"training": {"epochs", "compile"}, "data": {"root", "download", "loader_workers", "memory_limit_mb"}}
FIXED_IN_TURN = (*FIXED, "partition")
FREE_IN_TURN = FREE | {"training": {"compile"}, "partition": {"profile_s"}}
"""Where blocks train one after another, cut and epochs decide which one a batch is for."""


@dataclass(frozen=True)
class Origin:
    """Where a run writes and where it begins.

    Attributes:
        folder: Folder of the run.
        checkpoint: Checkpoint to begin at; None: begin with fresh parameters.
        manifest: Manifest of that checkpoint.
        evaluated: Epochs that have been evaluated already.
        is_over: Whether the run finished earlier, with as many epochs, and left all its figures.
        is_own_end: Whether the checkpoint is the run's end, and need only hold the blocks of this process.
    """

    folder: Path
    checkpoint: Path | None = None
    manifest: Manifest | None = None
    evaluated: tuple[int, ...] = ()
    is_over: bool = False
    is_own_end: bool = False

    @property
    def batch_id(self) -> int:
        """The first training batch of stage 0."""
        return self.manifest.batch_id if self.manifest else 0

    def note(self) -> Beginning:
        """A note for `read` in the other processes of the run."""
        checkpoint = str(self.checkpoint.absolute()) if self.checkpoint else ""
        return Beginning(str(self.folder.absolute()), checkpoint, self.evaluated, self.is_over)

    @classmethod
    def read(cls, note: Beginning) -> "Origin":
        """The origin in a note. Reads the manifest from the checkpoint, which every host must reach."""
        if not note.checkpoint:
            return cls(Path(note.folder))
        checkpoint = Path(note.checkpoint)
        return cls(Path(note.folder), checkpoint, parse_manifest(checkpoint), note.evaluated, note.is_over)


def say(text: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(shown(text), flush=True)


def find_origin(resume: str | None, plan: Plan, earlier: Path | None, say: Callable[[str], None]) -> Origin:
    """Decides where a run begins, and claims its folder. For one process of the run to call, before the run has begun:
    while it decides it holds the folder's lock, which the run's rank 0 takes later. Blocks for the disk.

    Args:
        resume: None: anew. "auto": in the folder `run.name`, or else in the newest one of this network and data, at its
            newest complete checkpoint; anew where there is no such folder. Otherwise the folder of a checkpoint, or of a
            run whose newest one is meant: the new run gets a folder of its own.
        earlier: The folder of an earlier attempt of this very run, which then goes on in any case.
        say: Called with a line for what has been chosen, and for everything that was passed over.

    Raises:
        ConfigError: The folder belongs to a run that is alive; or there is no such checkpoint, it is damaged or outdated,
            or it is of another network, optimizer or other data.
    """
    folder = earlier or (newest_folder(plan.config) if resume == AUTOMATIC else None)
    if folder:
        with FolderLock(folder):
            return find_again(plan, folder, say)
    start = None if resume in (None, AUTOMATIC) else _checkpoint_of(Path(str(resume)), say)
    if start:
        _go_on(start, plan, say)
    elif resume:
        say(ANEW)
    folder = claim_folder(plan.config)
    try:
        with FolderLock(folder):
            forget_records(folder / METRICS)
            _note_beginning(folder, start[0] if start else None)
    except OSError as error:
        raise ConfigError([f"run.folder: {error.filename or folder}: {reason_of(error)}"]) from None
    return Origin(folder, *(start or ()))


def find_again(plan: Plan, folder: Path, say: Callable[[str], None] = say) -> Origin:
    """Where a run goes on in its own folder: at its newest valid checkpoint, or where it began. For the process that holds
    the folder's lock: sets damaged checkpoints aside, and drops the records of later steps.

    Raises:
        ConfigError: As `find_origin`.
    """
    try:
        found, damaged = search(folder)
    except Outdated as error:
        raise ConfigError([f"--resume: {error}"]) from None
    for path, reason in damaged:
        say(f"greedypipe: {reason}; {set_aside(path)}")
    start = found or beginning_of(folder, say)
    if start:
        _go_on(start, plan, say)
    else:
        say(ANEW)
    if found is None:
        forget_records(folder / METRICS)
        return Origin(folder, *(start or ()))
    checkpoint, manifest = found
    is_end = checkpoint.name == FINAL
    if is_end and min(manifest.steps.values()) < plan.blueprint.total_steps:
        # The run will write another end, and until that is complete this one must stay whole.
        checkpoint = renamed(checkpoint, name_of(manifest.batch_id))
    elif is_end and _has_figures(folder):
        return Origin(folder, checkpoint, manifest, is_over=True)
    keep_metrics(folder / METRICS, manifest, plan)
    return Origin(folder, checkpoint, manifest, keep_evaluations(folder / METRICS, manifest, plan))


def _has_figures(folder: Path) -> bool:
    try:
        summary = read_summary(folder)
    except ValueError:
        return False
    return isinstance(summary, Summary) and summary.status == RunEnd.FINISHED


def beginning_of(folder: Path, say: Callable[[str], None]) -> tuple[Path, Manifest] | None:
    """The checkpoint of another run that the run of this folder began with; None where it began with fresh parameters.

    Raises:
        ConfigError: That checkpoint is not valid any more.
    """
    try:
        text = (folder / BEGINNING).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return _checkpoint_of(Path(json.loads(text)["checkpoint"]), say)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{folder / BEGINNING}: {error}"]) from None


def _note_beginning(folder: Path, checkpoint: Path | None) -> None:
    if checkpoint:
        write_atomically(folder / BEGINNING, json.dumps({"checkpoint": str(checkpoint.absolute())}))
    else:
        (folder / BEGINNING).unlink(missing_ok=True)


def _go_on(start: tuple[Path, Manifest], plan: Plan, say: Callable[[str], None]) -> None:
    """Says where the run goes on; raises ConfigError where it cannot."""
    checkpoint, manifest = start
    check_compatible(manifest, plan.config)
    check_same_data(manifest.data, plan.data, say)
    if max(manifest.steps.values()) > plan.blueprint.total_steps:
        per_epoch, steps = plan.blueprint.steps_per_epoch, max(manifest.steps.values())
        allowed = f"allowed: {-(-steps // per_epoch)} or more: the checkpoint is at step {steps}, {per_epoch} are an epoch"
        raise ConfigError([f"training.epochs: got {plan.config.training.epochs}, {allowed}"])
    say(f"goes on at batch {manifest.batch_id} of {checkpoint}")


def _checkpoint_of(path: Path, say: Callable[[str], None]) -> tuple[Path, Manifest]:
    """A checkpoint, or the newest one of a run."""
    try:
        if (path / MANIFEST).exists():
            return path, read_manifest(path)
        found = newest_valid(path, say) if path.is_dir() else None
    except (Damaged, Outdated) as error:
        raise ConfigError([f"--resume: {error}"]) from None
    if found is None:
        raise ConfigError([f"--resume: got {path}, allowed: auto, or the folder of a run or checkpoint that is complete"])
    return found


def check_compatible(manifest: Manifest, config: RunConfig) -> None:
    """Raises ConfigError with a line for every key of FIXED sections that differs from the checkpoint's.

    If a section has another variant, only its name is reported, since its keys differ.
    """
    now: dict[str, dict[str, Any]] = config.model_dump(mode="json")
    fixed, free = (FIXED, FREE) if config.training.schedule == "together" else (FIXED_IN_TURN, FREE_IN_TURN)
    lines = [
        f"{section}.{key}: got {value!r}, the checkpoint has {saved.get(key)!r}: it cannot go on from there"
        for section, saved in ((section, manifest.config.get(section, {})) for section in fixed)
        for key, value in _comparable(now[section], saved).items()
        if key not in free.get(section, ()) and saved.get(key) != value
    ]
    if lines:
        raise ConfigError(lines)


def _comparable(keys: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """The keys that both have, or only the name if it differs: the checkpoint may be older than a key."""
    if keys.get("name") != saved.get("name"):
        return {"name": keys["name"]}
    return {key: value for key, value in keys.items() if key in saved}


def resumed_plan(plan: Plan, origin: Origin) -> Plan:
    """The plan, with the checkpoint's cut if the plan leaves the cut open, so that heads stay with their layers."""
    if origin.manifest is None or plan.config.partition.boundaries != AUTO:
        return plan
    saved = PartitionConfig(**origin.manifest.config["partition"])
    if saved.blocks != plan.config.partition.blocks or saved.boundaries == AUTO:
        return plan
    return plan.recut(saved.boundaries)
