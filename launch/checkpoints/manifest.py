"""Which checkpoints of a run are complete: a manifest is written last, and without a valid one a folder does not count."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from greedypipe.workers.atomic import write_atomically
from greedypipe.workers.data.info import DataInfo

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a complete checkpoint holds.

    Attributes:
        batch_id: Of the next training batch of stage 0: so many have been sent before the mark.
        steps: Optimizer steps by block index. With FIFO all equal `batch_id`; with replay the blocks drift.
        files: SHA-256 by file name.
        accuracy: Of the network's own classifier in an evaluation of exactly this state, where there was one.
        data: What the run trains on; None in a checkpoint that is older than this field.
    """

    batch_id: int
    steps: dict[int, int]
    files: dict[str, str]
    accuracy: float | None
    config: dict[str, Any]
    versions: dict[str, str]
    data: DataInfo | None = None

    @property
    def validated(self) -> float | None:
        """The accuracy, where it is one on a validation part: by one on the test part no checkpoint is chosen."""
        return self.accuracy if self.data and self.data.validation_samples else None


_MANIFESTS = TypeAdapter(Manifest)


class Outdated(ValueError):
    """A checkpoint was written by a version whose block files are laid out otherwise; names the folder."""


class Damaged(ValueError):
    """A checkpoint is not what its manifest says; names the file."""


def checkpoints_of(run: Path) -> Path:
    """The folder of a run's checkpoints."""
    return run / "checkpoints"


def name_of(batch_id: int) -> str:
    """The folder of a checkpoint, so that names sort as batches do."""
    return f"batch-{batch_id:08d}"


def commit(folder: Path, manifest: Manifest) -> None:
    """Makes a checkpoint count. All of its files must be there."""
    write_atomically(folder / MANIFEST, json.dumps(asdict(manifest), indent=1))


def read_manifest(folder: Path) -> Manifest:
    """Reads what a checkpoint should hold, and checks every file's bytes against it.

    Raises:
        Damaged: The manifest or a file is missing, truncated or changed.
    """
    manifest = parse_manifest(folder)
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path} is missing")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise Damaged(f"{path} is damaged: its bytes are not those that were saved")
    return manifest


def parse_manifest(folder: Path) -> Manifest:
    """Reads what a checkpoint should hold, and looks at no other file.

    Raises:
        Damaged: The manifest is missing or cannot be read.
        Outdated: It is of an earlier layout.
    """
    try:
        manifest = _MANIFESTS.validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise Damaged(f"{folder} has no {MANIFEST}: it was never completed") from None
    except ValidationError as error:
        raise Damaged(f"{folder / MANIFEST} cannot be read: {error.errors()[0]['msg']}") from None
    if "loss" in manifest.config:
        raise Outdated(f"{folder} was written by greedypipe 0.1 (section loss: instead of method:), which cannot be read")
    return manifest


def complete_folders(run: Path) -> list[Path]:
    """The checkpoints that have a manifest, the newest first; their files are not looked at."""
    return sorted((path.parent for path in checkpoints_of(run).glob(f"*/{MANIFEST}")), key=_position, reverse=True)


def _position(folder: Path) -> int:
    try:
        return parse_manifest(folder).batch_id
    except Damaged:
        return -1


def newest_valid(run: Path, say: Callable[[str], None]) -> tuple[Path, Manifest] | None:
    """The newest checkpoint whose bytes are right; `say` is told of each newer one that is passed over, and why."""
    for folder in complete_folders(run):
        try:
            return folder, read_manifest(folder)
        except Damaged as error:
            say(f"{error}; the checkpoint before it is taken")
    return None


def prune(run: Path, keep: int, spared: str) -> None:
    """Removes all but the newest `keep` complete checkpoints, the most accurate one on a validation part and `spared`, and
    the incomplete ones that are older than the newest complete one."""
    complete = [folder for folder in complete_folders(run) if folder.name != spared]
    rated = [(accuracy, folder) for folder in complete if (accuracy := parse_manifest(folder).validated) is not None]
    best = max(rated, default=(0.0, None), key=lambda one: one[0])[1]
    kept = {*complete[:keep], best}
    for folder in checkpoints_of(run).iterdir():
        if folder.name != spared and folder not in kept and complete and folder.name <= complete[0].name:
            # The manifest goes first: what is half removed must not count.
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
