"""The folder of a run: how a new run gets one, and which one an earlier run has had."""

import re
from pathlib import Path

from greedypipe.launch.checkpoints.folder_lock import LOCK, FolderLock
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.sections import RunConfig
from greedypipe.workers.atomic import reason_of
from greedypipe.workers.telemetry.results import Failure
from greedypipe.workers.telemetry.summary_file import SUMMARY, read_summary

BEGINNING = "beginning.json"
"""Where a run notes the checkpoint of another run that it goes on from (launch.checkpoints.resume)."""
_BEFORE_TRAINING = {LOCK, BEGINNING, "config.yaml", "status.json", SUMMARY, "metrics", "checkpoints", "logs"}
"""What a run has written into its folder before it has trained anything."""


def claim_folder(config: RunConfig) -> Path:
    """Makes the run's folder, for one process of the run to call. One in which a run has trained nothing counts as new.

    Raises:
        ConfigError: The name is taken, or the folder cannot be made.
    """
    parent = Path(config.run.folder)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return _claim_named(parent / config.run.name) if config.run.name else _claim_next(parent, _stem(config))
    except OSError as error:
        raise ConfigError([f"run.folder: {error.filename or parent}: {reason_of(error)}"]) from None


def newest_folder(config: RunConfig) -> Path | None:
    """The folder that an earlier run of this configuration has claimed last; None where there is none."""
    parent = Path(config.run.folder)
    if config.run.name:
        folder = parent / config.run.name
        return folder if folder.is_dir() else None
    numbered = re.compile(re.escape(_stem(config)) + r"-(\d+)")
    found = [(int(match[1]), path) for path in parent.glob("*") if (match := numbered.fullmatch(path.name))]
    return max(found)[1] if found else None


def _stem(config: RunConfig) -> str:
    return "-".join(re.sub(r"\W+", "_", name) for name in (config.model.name, config.data.name))


def _claim_named(folder: Path) -> Path:
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        if not _was_claimed(folder) or not _is_unused(folder):
            raise ConfigError([f"run.name: {folder} exists already; take another name or remove it"]) from None
    return folder


def _claim_next(parent: Path, stem: str) -> Path:
    number = 1
    while True:
        try:
            (parent / f"{stem}-{number}").mkdir()
            return parent / f"{stem}-{number}"
        except FileExistsError:
            number += 1


def _was_claimed(folder: Path) -> bool:
    """Whether a folder may be that of a run; an empty one is that of a run which ended before it could lock it."""
    return (folder / LOCK).exists() or not any(folder.iterdir())


def _is_unused(folder: Path) -> bool:
    """Whether the run that has claimed the folder ended before it trained anything.

    Raises:
        ConfigError: It is alive.
    """
    with FolderLock(folder):
        if {path.name for path in folder.iterdir()} - _BEFORE_TRAINING:
            return False
        files = [path for name in ("metrics", "checkpoints") for path in (folder / name).rglob("*") if path.is_file()]
        return not any(path.stat().st_size for path in files) and _has_no_figures(folder)


def _has_no_figures(folder: Path) -> bool:
    try:
        return isinstance(read_summary(folder), Failure | None)
    except ValueError:
        return False
