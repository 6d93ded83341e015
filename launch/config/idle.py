"""Keys of the configuration file that an override makes idle: they are dropped, as if the file had never set them."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from greedypipe.launch.config.sections import RunConfig
from greedypipe.pipeline.no_effect import NoEffect

Tree = Mapping[str, Any]
BLOCKS, BOUNDARIES = "partition.blocks", "partition.boundaries"


def without_idle(tree: Tree, file: Tree) -> dict[str, Any]:
    """The sections with all overrides, without the file's keys that have no effect because of one.

    Args:
        file: The sections without overrides. What has no effect there already is the file's own mistake, and stays.
    """
    idle = _idle(tree)
    idle = (idle - _idle(file) if idle else idle) | _contradicted(tree, file)
    unchanged = {key for key in idle if _value(tree, key) == _value(file, key)}
    return {
        section: {name: value for name, value in keys.items() if f"{section}.{name}" not in unchanged}
        if isinstance(keys, Mapping)
        else keys
        for section, keys in tree.items()
    }


def _idle(tree: Tree) -> set[str]:
    try:
        RunConfig.model_validate(tree)
    except ValidationError as error:
        found = [details for details in error.errors() if isinstance(details.get("ctx", {}).get("error"), NoEffect)]
        return {".".join(map(str, details["loc"][:2])) for details in found}
    return set()


def _contradicted(tree: Tree, file: Tree) -> set[str]:
    """Named boundaries set the number of blocks: an override of one of the two replaces the file's other one."""
    boundaries, blocks = _value(tree, BOUNDARIES), _value(tree, BLOCKS)
    if not isinstance(boundaries, list) or not boundaries or blocks in (None, len(boundaries) + 1):
        return set()
    changed = {key for key in (BLOCKS, BOUNDARIES) if _value(tree, key) != _value(file, key)}
    return {BLOCKS, BOUNDARIES} - changed if changed else set()


def _value(tree: Tree, key: str) -> Any:
    section, _, name = key.partition(".")
    keys = tree.get(section)
    return keys.get(name) if isinstance(keys, Mapping) else None
