"""Which checkpoints of a run stay, and how the others go: nothing is removed that the run has not written itself."""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from greedypipe.launch.checkpoints.manifest import (
    MANIFEST,
    Damaged,
    Manifest,
    Outdated,
    batch_of,
    checkpoints_of,
    complete_folders,
    parse_manifest,
)

_OWN_FILE = re.compile(r"(block\d+\.pt|manifest\.json)(\.partial)?")


def own_history(run: Path, began_at: int | None) -> dict[int, Path]:
    """The complete checkpoints that a run has passed through on its way to where it goes on, by batch; not its end.

    Args:
        run: The run's folder.
        began_at: The batch of the checkpoint in this folder that the run goes on from; None where it begins without one:
            then nothing that is there is its own.
    """
    if began_at is None:
        return {}
    return {batch: folder for batch, folder in _named(complete_folders(run)) if batch <= began_at and _manifest(folder)}


def prune(run: Path, keep: int, history: dict[int, Path]) -> None:
    """Removes all but the newest `keep` checkpoints of a run's history and the most accurate one, from the disk and from
    `history`, and what was left incomplete before the newest one.

    Raises:
        OSError: Something cannot be removed; all else is.
    """
    kept = {*sorted(history)[-keep:], _most_accurate(history)}
    unwanted = [history.pop(batch) for batch in sorted(history) if batch not in kept]
    newest = max(history, default=0)
    for batch, folder in _named(checkpoints_of(run).iterdir()):
        if batch < newest and not (folder / MANIFEST).exists():
            unwanted.append(folder)
    errors = []
    for folder in unwanted:
        try:
            remove_checkpoint(folder)
        except OSError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def remove_checkpoint(folder: Path) -> None:
    """Removes the files that a run writes into the folder of a checkpoint, and the folder where nothing else is in it.

    Raises:
        OSError: A file cannot be removed.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    # The manifest goes first: what is half removed must not count.
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.iterdir():
        if _OWN_FILE.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def set_aside(folder: Path) -> str:
    """Gives a damaged checkpoint a name under which it does not count; returns what was done, in words."""
    taken = [path.name for path in folder.parent.iterdir()]
    names = (f"{folder.name}.damaged{f'-{number}' if number > 1 else ''}" for number in itertools.count(1))
    name = next(name for name in names if name not in taken)
    return f"set aside as {name}" if renamed(folder, name) != folder else "passed over"


def renamed(folder: Path, name: str) -> Path:
    """Renames a folder, where nothing has that name and the disk allows it; returns where it is then."""
    target = folder.with_name(name)
    try:
        if not target.exists():
            return folder.rename(target)
    except OSError:
        pass
    return folder


def _named(folders: Iterable[Path]) -> Iterator[tuple[int, Path]]:
    """The folders that have a checkpoint's name, with its batch. What a link leads to may be another run's."""
    for folder in folders:
        if (batch := batch_of(folder)) is not None and not folder.is_symlink():
            yield batch, folder


def _most_accurate(history: dict[int, Path]) -> int | None:
    manifests = {batch: _manifest(folder) for batch, folder in history.items()}
    rated = [(one.accuracy, batch) for batch, one in manifests.items() if one and one.accuracy is not None]
    return max(rated)[1] if rated else None


def _manifest(folder: Path) -> Manifest | None:
    """None also of a checkpoint that has been damaged since."""
    try:
        return parse_manifest(folder)
    except (Damaged, Outdated):
        return None
