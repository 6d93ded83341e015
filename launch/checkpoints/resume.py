"""Where a run begins: anew, or at a checkpoint of its own folder or of another run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greedypipe.launch.checkpoints.manifest import (
    MANIFEST,
    Damaged,
    Manifest,
    Outdated,
    newest_valid,
    parse_manifest,
    read_manifest,
)
from greedypipe.launch.checkpoints.run_folder import claim_folder, newest_folder
from greedypipe.launch.checkpoints.trim_records import forget_records, keep_evaluations, keep_metrics
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.run_plan import Plan
from greedypipe.pipeline.partition import AUTO, PartitionConfig
from greedypipe.workers.telemetry.records import Beginning

AUTOMATIC = "auto"
FIXED = ("data", "model", "head", "method", "optimizer", "auxiliary", "feedback", "training")
"""Sections that a resumed run must share with the one that it goes on from."""
FREE = {"training": {"epochs", "compile"}, "data": {"root", "download", "loader_workers", "memory_limit_mb"}}


@dataclass(frozen=True)
class Origin:
    """Where a run writes and where it begins.

    Attributes:
        folder: The run's.
        checkpoint: To begin at; None: with fresh parameters.
        manifest: Of that checkpoint.
        evaluated: Epochs whose evaluation is known already.
    """

    folder: Path
    checkpoint: Path | None = None
    manifest: Manifest | None = None
    evaluated: tuple[int, ...] = ()

    @property
    def batch_id(self) -> int:
        """The first training batch of stage 0."""
        return self.manifest.batch_id if self.manifest else 0

    def note(self) -> Beginning:
        """For `read`, in the other processes of the run."""
        checkpoint = str(self.checkpoint.absolute()) if self.checkpoint else ""
        return Beginning(str(self.folder.absolute()), checkpoint, self.evaluated)

    @classmethod
    def read(cls, note: Beginning) -> "Origin":
        """The origin that was noted; its manifest is read from the checkpoint, which all hosts must reach."""
        if not note.checkpoint:
            return cls(Path(note.folder))
        checkpoint = Path(note.checkpoint)
        return cls(Path(note.folder), checkpoint, parse_manifest(checkpoint), note.evaluated)


def say(text: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(text, flush=True)


def find_origin(resume: str | None, plan: Plan, earlier: Path | None, say: Callable[[str], None]) -> Origin:
    """Decides where a run begins, and claims its folder. For one process of the run to call.

    Args:
        resume: None: anew. "auto": in the folder `run.name`, or else in the newest one of this network and data, at its
            newest complete checkpoint; anew where there is no such folder. Otherwise the folder of a checkpoint, or of a
            run whose newest one is meant: the new run gets a folder of its own.
        earlier: The folder of an earlier attempt of this very run, which then goes on in any case.
        say: Is told what has been chosen, and what was passed over.

    Raises:
        ConfigError: There is no such checkpoint, it is damaged or outdated, or it is of another network, data
            or optimizer.
    """
    config, metrics = plan.config, "metrics"
    folder = earlier or (newest_folder(config) if resume == AUTOMATIC else None)
    try:
        own = newest_valid(folder, say) if folder else None
        found = own or (_checkpoint_at(Path(resume), say) if resume not in (None, AUTOMATIC) else None)
    except (Damaged, Outdated) as error:
        raise ConfigError([f"--resume: {error}"]) from None
    if found:
        check_compatible(found[1], config)
        say(f"goes on at batch {found[1].batch_id} of {found[0]}")
    elif resume or earlier:
        say("nothing to resume: the run begins anew")
    folder = folder or claim_folder(config)
    if own is None:
        forget_records(folder / metrics)
        return Origin(folder, *(found or ()))
    keep_metrics(folder / metrics, own[1], plan)
    return Origin(folder, *own, keep_evaluations(folder / metrics, own[1], plan))


def find_again(plan: Plan, folder: Path, say: Callable[[str], None] = say) -> Origin:
    """Where a run goes on in its own folder: at its newest complete checkpoint, or where it began. See `find_origin`."""
    return find_origin(None, plan, folder, say)


def _checkpoint_at(path: Path, say: Callable[[str], None]) -> tuple[Path, Manifest]:
    if (path / MANIFEST).exists():
        return path, read_manifest(path)
    found = newest_valid(path, say) if path.is_dir() else None
    if found is None:
        raise ConfigError([f"--resume: got {path}, allowed: auto, or the folder of a run or checkpoint that is complete"])
    return found


def check_compatible(manifest: Manifest, config: RunConfig) -> None:
    """Raises ConfigError with a line for every key of FIXED sections that differs from the checkpoint's.

    Of a section in another variant only the name is reported: its keys are others.
    """
    now: dict[str, dict[str, Any]] = config.model_dump(mode="json")
    lines = [
        f"{section}.{key}: got {value!r}, the checkpoint has {saved.get(key)!r}: it cannot go on from there"
        for section, saved in ((section, manifest.config[section]) for section in FIXED)
        for key, value in _comparable(now[section], saved).items()
        if key not in FREE.get(section, ()) and saved.get(key) != value
    ]
    if lines:
        raise ConfigError(lines)


def _comparable(keys: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """The keys that both have, or the name alone where it differs: a key may be younger than the checkpoint."""
    if keys.get("name") != saved.get("name"):
        return {"name": keys["name"]}
    return {key: value for key, value in keys.items() if key in saved}


def resumed_plan(plan: Plan, origin: Origin) -> Plan:
    """The plan with the checkpoint's own cut where it leaves the cut open, so that heads and layers stay together."""
    if origin.manifest is None or plan.config.partition.boundaries != AUTO:
        return plan
    saved = PartitionConfig(**origin.manifest.config["partition"])
    if saved.blocks != plan.config.partition.blocks or saved.boundaries == AUTO:
        return plan
    return plan.recut(saved.boundaries)
