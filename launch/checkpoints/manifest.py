"""Which folders are checkpoints: a manifest is written last, with a digest of itself, and says what each file must hold."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from greedypipe.workers.atomic import write_atomically
from greedypipe.workers.block_files import FINAL, block_file, not_finite, read_block
from greedypipe.workers.data.info import DataInfo
from greedypipe.workers.validator import Validator

MANIFEST = "manifest.json"
_NAME = re.compile(r"batch-(\d{8,})")
_DIGEST = b',\n "digest": "'


@dataclass(frozen=True)
class Manifest:
    """What a complete checkpoint holds.

    Attributes:
        batch_id: The next training batch of stage 0: the number of batches that were sent before the mark.
        steps: Optimizer steps by block index. With FIFO all equal `batch_id`; with replay the blocks drift.
        files: SHA-256 by file name, one file per block.
        accuracy: Accuracy of the network's own classifier in an evaluation of exactly this state, where there was one.
        config: The run's configuration.
        versions: Versions of whatever decides the bits of a run.
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


_MANIFESTS: Validator[Manifest] = Validator(Manifest)


class Damaged(ValueError):
    """A checkpoint is not as it was saved, or is none; names the folder and what is wrong in it."""


class Outdated(ValueError):
    """A checkpoint was written by a version whose block files are laid out otherwise; names the folder."""


def checkpoints_of(run: Path) -> Path:
    """The folder of a run's checkpoints."""
    return run / "checkpoints"


def name_of(batch_id: int) -> str:
    """The folder of a checkpoint, so that names sort as batches do."""
    return f"batch-{batch_id:08d}"


def batch_of(folder: Path) -> int | None:
    """The batch that a folder's name stands for; None where the name is none that `name_of` gives."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match and name_of(int(match[1])) == folder.name else None


def commit(folder: Path, manifest: Manifest) -> None:
    """Makes a checkpoint count. All of its files must be there; those of blocks that it does not name, which an earlier
    attempt with another cut has left, are removed. Blocks for the disk.

    Raises:
        OSError: The disk refuses; the checkpoint does not count.
    """
    for path in folder.glob("block*.pt"):
        if path.name not in manifest.files:
            path.unlink()
    write_atomically(folder / MANIFEST, _with_digest(json.dumps(asdict(manifest), indent=1).encode()).decode())


def parse_manifest(folder: Path) -> Manifest:
    """Reads what a checkpoint should hold, as it was written to the byte; looks at no other file.

    Raises:
        Damaged: The manifest is missing, changed, or says what cannot be.
        Outdated: It has an earlier layout.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{folder} has no {MANIFEST}: it was never completed") from None
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from None
    try:
        manifest = _MANIFESTS.validate_json(content)
    except ValidationError as error:
        raise Damaged(f"{path} cannot be read: {error.errors()[0]['msg']}") from None
    if "loss" in manifest.config:
        raise Outdated(f"{folder} was written by greedypipe 0.1 (section loss: instead of method:), which cannot be read")
    if problem := _contradiction(folder, manifest):
        raise Damaged(f"{path} is damaged: {problem}")
    if content != _with_digest(content.rpartition(_DIGEST)[0] + b"\n}"):
        raise Damaged(f"{path} is damaged: its bytes are not those that were saved")
    return manifest


def _with_digest(text: bytes) -> bytes:
    """The text of a JSON object with a last entry: the SHA-256 of the text without it."""
    return text.removesuffix(b"\n}") + _DIGEST + hashlib.sha256(text).hexdigest().encode() + b'"\n}'


def _contradiction(folder: Path, manifest: Manifest) -> str:
    """What cannot be true of a checkpoint in this folder; empty where all fits together."""
    partition = manifest.config.get("partition")
    blocks = partition.get("blocks") if isinstance(partition, dict) else None
    if not isinstance(blocks, int) or blocks < 1:
        return "its configuration has no partition"
    if sorted(manifest.files) != sorted(map(block_file, range(len(manifest.files)))) or len(manifest.files) != blocks:
        return f"it does not name the files of {blocks} blocks"
    if sorted(manifest.steps) != list(range(len(manifest.steps))) or len(manifest.steps) != blocks:
        return f"it does not have the steps of {blocks} blocks"
    named = batch_of(folder)
    if manifest.batch_id < 0 or min(manifest.steps.values()) < 0 or named not in (None, manifest.batch_id):
        return f"it is of batch {manifest.batch_id}"
    return ""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint that is valid: every block of its partition is there as it was saved, at its step, and
    all that is trained is finite. The one judgement of whether a folder is a checkpoint; reads all of its bytes.

    Raises:
        Damaged: It is not valid; says what is wrong with each file.
        Outdated: It has an earlier layout.
    """
    try:
        manifest = parse_manifest(folder)
    except Damaged as error:
        files = sorted(folder.glob("block*.pt")) if (folder / MANIFEST).exists() else []
        raise Damaged("; ".join([str(error), *_without_none(_unreadable(file) for file in files)])) from None
    problems = _without_none(_problem_of_block(folder, manifest, index) for index in range(len(manifest.files)))
    if problems:
        raise Damaged("; ".join(problems))
    return manifest


def _problem_of_block(folder: Path, manifest: Manifest, index: int) -> str | None:
    path = folder / block_file(index)
    if not path.is_file():
        return f"{path} is missing"
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != manifest.files[path.name]:
                return f"{path} is damaged: its bytes are not those that were saved"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return _unreadable(path, (index, manifest.steps[index]))


def _unreadable(path: Path, place: tuple[int, int] | None = None) -> str | None:
    """Why a file holds no block, or not the one with this index and turn, or one that no training can go on from."""
    try:
        state = read_block(path)
    except ValueError as error:
        return str(error)
    if place and (state["index"], state["turn"]) != place:
        return f"{path} is damaged: it holds block {state['index']} at turn {state['turn']}"
    bad = not_finite(state)
    return f"{path} cannot be used: {bad}" if bad else None


def _without_none(problems: Iterable[str | None]) -> list[str]:
    return [problem for problem in problems if problem]


def complete_folders(run: Path) -> list[Path]:
    """The folders of a run that have a manifest and a checkpoint's name, the newest first; no other file is looked at.

    The newest one is that in which the slowest block has come farthest. One whose manifest cannot be read has the place
    that its name says; the end of a run, the first.
    """
    folders = [path.parent for path in checkpoints_of(run).glob(f"*/{MANIFEST}")]
    named = [folder for folder in folders if folder.name == FINAL or batch_of(folder) is not None]
    return sorted(named, key=_position, reverse=True)


def _position(folder: Path) -> tuple[float, bool, int]:
    batch = batch_of(folder)
    try:
        manifest = parse_manifest(folder)
    except (Damaged, Outdated):
        return math.inf if batch is None else batch, batch is None, batch or 0
    return min(manifest.steps.values()), batch is None, manifest.batch_id


def search(run: Path) -> tuple[tuple[Path, Manifest] | None, list[tuple[Path, Damaged]]]:
    """The newest checkpoint of a run that is valid, and the newer ones that are not, each with what is wrong.

    Raises:
        Outdated: One that would be the newest has an earlier layout.
    """
    damaged: list[tuple[Path, Damaged]] = []
    for folder in complete_folders(run):
        try:
            return (folder, read_manifest(folder)), damaged
        except Damaged as error:
            damaged.append((folder, error))
    return None, damaged


def newest_valid(run: Path, say: Callable[[str], None]) -> tuple[Path, Manifest] | None:
    """The newest checkpoint of a run that is valid; `say` is told of each newer one that is passed over, and why.

    Raises:
        Outdated: As `search`.
    """
    found, damaged = search(run)
    for _, error in damaged:
        say(f"greedypipe: {error}; passed over")
    return found
