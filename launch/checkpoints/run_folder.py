"""The folder of a run."""

import re
from pathlib import Path

from greedypipe.launch.config.loader import ConfigError
from greedypipe.launch.config.sections import RunConfig


def claim_folder(config: RunConfig) -> Path:
    """Makes the run's folder, for one process of the run to call.

    Raises:
        ConfigError: The name is taken, or the folder cannot be made.
    """
    parent = Path(config.run.folder)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if config.run.name:
            (parent / config.run.name).mkdir()
            return parent / config.run.name
        return _claim_next(parent, _stem(config))
    except FileExistsError:
        raise ConfigError([f"run.name: {parent / config.run.name} exists already; take another name or remove it"]) from None
    except OSError as error:
        raise ConfigError([f"run.folder: {error}"]) from None


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


def _claim_next(parent: Path, stem: str) -> Path:
    number = 1
    while True:
        try:
            (parent / f"{stem}-{number}").mkdir()
            return parent / f"{stem}-{number}"
        except FileExistsError:
            number += 1
