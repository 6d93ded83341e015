"""The folder of a run."""

import re
from pathlib import Path

from launch.config import ConfigError
from launch.settings import RunConfig


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
        return _claim_next(parent, re.sub(r"\W+", "_", config.model.name) + f"-{config.data.name}")
    except FileExistsError:
        raise ConfigError([f"run.name: {parent / config.run.name} exists already; take another name or remove it"]) from None
    except OSError as error:
        raise ConfigError([f"run.folder: {error}"]) from None


def _claim_next(parent: Path, stem: str) -> Path:
    number = 1
    while True:
        try:
            (parent / f"{stem}-{number}").mkdir()
            return parent / f"{stem}-{number}"
        except FileExistsError:
            number += 1
