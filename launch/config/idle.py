"""Keys of the configuration file that have no effect: which of them are dropped, as if the file had never set them.

| what has no effect                  | in a section of the file             | becomes  |
|-------------------------------------|--------------------------------------|----------|
| because of an override              | any                                  | dropped  |
| because of another key of the file  | that names all its keys: a run's own | dropped  |
| because of another key of the file  | any other, written by hand           | an error |

A run's config.yaml holds the defaults of its time, which may be other ones than today's.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from greedypipe.launch.config.errors import key_of
from greedypipe.launch.config.keys import family_of
from greedypipe.launch.config.sections import RunConfig
from greedypipe.pipeline.no_effect import NO_EFFECT

Tree = Mapping[str, Any]
BLOCKS, BOUNDARIES = "partition.blocks", "partition.boundaries"


def without_idle(tree: Tree, file: Tree) -> dict[str, Any]:
    """The sections with all overrides, without what the file has in vain.

    Args:
        file: The sections without overrides.
    """
    idle = _idle(tree)
    mistakes = {key for key in _idle(file) if not _is_written_by_a_run(file, key.partition(".")[0])} if idle else set()
    idle = (idle - mistakes) | _contradicted(tree, file)
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
        return {key_of(details["loc"]) for details in error.errors() if details["type"] == NO_EFFECT}
    return set()


def _is_written_by_a_run(tree: Tree, section: str) -> bool:
    keys, family = tree.get(section), family_of(section)
    if not isinstance(keys, Mapping):
        return False
    model: Any = RunConfig.model_fields[section].annotation
    if family:
        model = family.variant(keys.get("name", family.default_name))
    return model is not None and model.model_fields.keys() <= keys.keys()


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
