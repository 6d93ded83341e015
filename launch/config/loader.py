"""Turns a YAML file and overrides into a RunConfig, or into an error with one line for everything that is wrong."""

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from greedypipe.launch.config.errors import ConfigError, Origins, did_you_mean, explain, key_of
from greedypipe.launch.config.idle import without_idle
from greedypipe.launch.config.keys import family_of
from greedypipe.launch.config.numbers import impossible_numbers
from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.config.values import unusable
from greedypipe.launch.config.yaml_text import read_document, read_word, write_document

BUNDLED = Path(__file__).resolve().parents[2] / "configs"
DEFAULT_CONFIG = os.path.relpath(BUNDLED / "digits.yaml")
"""Bundled handwritten digits, four blocks."""


def load_config(path: str | None, overrides: Sequence[str]) -> RunConfig:
    """Reads a file (None: all defaults) and applies overrides of the form section.key=value, whose values are YAML.

    Paths may begin with `~`, on the command line and in the file.

    If an override chooses another variant of a section, the file's keys for the replaced variant are dropped; so are its
    keys that an override leaves without effect, and those of a run's own file that had none (launch.config.idle).
    `digits.yaml` or `configs/digits.yaml` means the bundled file if the current folder has no such file.

    Raises:
        ConfigError: File, keys, types, values or their combination are wrong.
    """
    tree = _read(Path(os.path.expanduser(path))) if path else {}
    file = copy.deepcopy(tree)
    errors = list(_apply(overrides, tree))
    origins = Origins(path or "the defaults", overrides)
    refused = dict(unusable(tree))
    errors += [f"{origins.locate(key)}: {problem}" for key, problem in refused.items()]
    try:
        config = RunConfig.model_validate(without_idle(tree, file))
        errors += [f"{origins.locate(key)}: {problem}" for key, problem in impossible_numbers(config.model_dump())]
    except ValidationError as error:
        found = [details for details in error.errors() if key_of(details["loc"]) not in refused]
        errors += [line for details in found for line in explain(details, tree, origins)]
    if errors:
        raise ConfigError(errors)
    return config


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML; reading it back gives an equal RunConfig."""
    return write_document(config.model_dump(mode="json"))


def _read(path: Path) -> dict[str, Any]:
    found = path
    if not path.is_file() and str(path.parent) in (".", BUNDLED.name):
        found = BUNDLED / path.name
    if not found.is_file():
        near = sorted(path.parent.glob("*.yaml")) or [
            Path(BUNDLED.name) / other.name for other in sorted(BUNDLED.glob("*.yaml"))
        ]
        raise ConfigError([f"{path}: no such file; there are {', '.join(map(str, near))}"])
    try:
        tree = read_document(found.read_bytes())
    except (ValueError, OSError) as error:
        raise ConfigError([f"{path}: {error.strerror if isinstance(error, OSError) else error}"]) from None
    if not isinstance(tree or {}, dict):
        raise ConfigError([f"{path}: got a {type(tree).__name__}, allowed: sections of keys"])
    return {section: keys if keys is not None else {} for section, keys in (tree or {}).items()}


def _apply(overrides: Sequence[str], tree: dict[str, Any]) -> Iterator[str]:
    """Applies the overrides to `tree`, and yields a line for each that cannot be applied."""
    settings: dict[tuple[str, ...], Any] = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not (equals and "." in name.strip(".")):
            yield f"command line: got {override!r}, allowed: section.key=value" + did_you_mean(name)
            continue
        try:
            settings[tuple(name.split("."))] = read_word(text)
        except ValueError:
            yield f"command line: {name}: got {text[:60]!r}, allowed: a YAML value"
    for (section, *keys), value in settings.items():
        if keys == ["name"]:
            _forget_other_variant(tree, section, value)
    for path, value in settings.items():
        _set(tree, path, value)


def _forget_other_variant(tree: dict[str, Any], section: str, name: Any) -> None:
    """Drops the file's keys that only the variant replaced by `name` has; a key that no variant has stays an error."""
    family, keys = family_of(section), tree.get(section)
    if family is None or not isinstance(keys, dict):
        return
    old, new = family.variant(keys.get("name", family.default_name)), family.variant(name)
    if old and new:
        for key in old.model_fields.keys() - new.model_fields.keys():
            keys.pop(key, None)


def _set(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *parents, last = path
    below: Any = tree
    for parent in parents:
        below = below.setdefault(parent, {})
        if not isinstance(below, dict):
            return  # the file does not have keys there, which is reported as a separate error
    below[last] = value
