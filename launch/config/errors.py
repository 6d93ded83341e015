"""Configuration errors, one line each: where the key was set, the key, what was got, what is allowed."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from greedypipe.launch.config.keys import OWN, all_keys, family_of, is_nested, names_with
from greedypipe.launch.config.sections import RunConfig
from greedypipe.pipeline.options import in_words

_RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "loss": "method",
        "loss.name": "method.name",
        "loss.beta": "method.beta",
        "loss.reconstruction_weight": "method.weight",
    }
)


class ConfigError(ValueError):
    """All errors in a configuration; `str` has one line per error."""

    def __init__(self, lines: Iterable[str]) -> None:
        super().__init__("\n".join(lines))


class Origins:
    """Where each key was set: on the command line or in the file."""

    def __init__(self, file: str, overrides: Sequence[str]) -> None:
        self._file = file
        self._overridden = [override.partition("=")[0] for override in overrides]

    def locate(self, key: str) -> str:
        """`key` with its origin in front: the command line, if it sets the key, a part of it, or its whole section."""
        for name in self._overridden:
            if name == key or name.startswith(f"{key}.") or key.startswith(f"{name}."):
                return f"command line: {key}"
        return f"{self._file}: {key}"


def explain(error: Mapping[str, Any], tree: Mapping[str, Any], origins: Origins) -> Iterator[str]:
    """The lines for one of pydantic's errors on `tree`, the sections as read."""
    section = str(error["loc"][0])
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        keys = error["input"] if isinstance(error["input"], dict) and error["input"] else None
        for key in [f"{section}.{name}" for name in keys] if keys else [section]:
            yield f"{origins.locate(key)}: unknown key{did_you_mean(key)}"
        return
    key = key_of(error["loc"])
    where = origins.locate(key)
    if error["type"] == "extra_forbidden":
        yield f"{where}: unknown key{_of_another_variant(key, tree) or did_you_mean(key)}"
    elif error["type"] in ("value_error", "refused"):
        yield f"{where}: {error['msg'].removeprefix('Value error, ')}"
    else:
        hint = "; put it in quotes" if error["type"] == "string_type" else ""
        yield f"{where}: {in_words(error)}{hint}"


def did_you_mean(key: str) -> str:
    """The nearest known key, as the end of a line: one with the same name, or else one with similar spelling."""
    if key in _RENAMED:
        return f"; did you mean {_RENAMED[key]}?"
    known = [*all_keys(), *RunConfig.model_fields]
    name = key.rpartition(".")[2]
    bare = [one for one in known if one.rpartition(".")[2] == name]
    near = difflib.get_close_matches(key, bare, n=1, cutoff=0) or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; --help lists all keys"


def key_of(location: Sequence[str | int]) -> str:
    """The key at a location: section.key, followed by the option's name inside a user's own options, and by a nested key."""
    depth = None if location[1:2] == ("options",) or is_nested(".".join(map(str, location[:2]))) else 2
    return ".".join(map(str, location[:depth]))


def _of_another_variant(key: str, tree: Mapping[str, Any]) -> str:
    """The variants that have a key that the chosen one lacks; empty if there are none."""
    section, family = key.partition(".")[0], family_of(key.partition(".")[0])
    owners = names_with(key)
    if family is None or not owners:
        return ""
    chosen = tree[section].get("name", family.default_name)
    return f" with {section}.name={chosen} ({', '.join(_without_own(owners))} only)"


def _without_own(names: Sequence[str]) -> list[str]:
    return [name for name in names if name != OWN] or [OWN]
