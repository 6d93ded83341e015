"""YAML as a configuration uses it: text, numbers, true and false, and nothing that turns into something else.

PyYAML reads YAML 1.1, where 0123 is 83, 1:30 is 90, 1e-3 is text, and yes, no, on and off are truth values. Here a scalar
is a number only where it looks like one in decimal notation, and text otherwise.
"""

import re
from collections.abc import Hashable
from pathlib import PurePath
from typing import Any

import yaml

MOST_VALUES = 10_000
"""Of a file with all its aliases resolved: a few lines of YAML can stand for billions of values."""
_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
)


_PLAIN = (None, *(f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")))


class _Loader(yaml.SafeLoader):
    """Refuses keys that are no names, and duplicate ones, of which PyYAML silently keeps the last."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - as PyYAML declares it
    yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _PLAIN}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key_node.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                raise _refused(f"got {_shown(key_node)} as a key, allowed: a name", key_node)
            if key in seen:
                raise _refused(f"duplicate key {key!r}", key_node)
            seen.add(key)
        # Only then what is merged in, which keys of the mapping itself may override.
        return super().construct_mapping(node, deep)


class _WordLoader(_Loader):
    """For a value of the command line, where a # is what the user wrote and begins no comment."""

    def scan_to_next_token(self) -> None:
        while self.peek() in " \n\ufeff":
            self.forward()


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that looks like something else here, or to a reader of YAML 1.1."""


_Dumper.add_multi_representer(PurePath, lambda dumper, path: dumper.represent_str(str(path)))
for _name, _pattern, _first in _SCALARS:
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))
# PyYAML looks an empty scalar up under "".
_Loader.add_implicit_resolver(f"{_TAG}null", re.compile("^$"), [""])


def read_document(content: bytes) -> Any:
    """What a file holds: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        ValueError: One line: it is no YAML, or not one document, or more than anybody wants to configure.
    """
    return _load(content, _Loader)


def read_word(text: str) -> Any:
    """What a value on the command line means: YAML in brackets or quotes, or else one plain scalar, whatever is in it.

    Raises:
        ValueError: One line: brackets or quotes do not match.
    """
    if text.lstrip()[:1] in tuple("[{'\""):
        return _load(text, _WordLoader)
    loader, word = _Loader(""), text.strip()
    tag: str = loader.resolve(yaml.ScalarNode, word, (True, False))  # type: ignore[no-untyped-call]
    return loader.construct_object(yaml.ScalarNode(tag, word), deep=True)


def write_document(value: Any) -> str:
    """A document that `read_document` reads back equal, and so does any reader of YAML 1.1; keys stay in order.

    Raises:
        ValueError: One line: there is something else in it than text, paths, numbers, truth values, lists and mappings.
    """
    try:
        return yaml.dump(value, Dumper=_Dumper, sort_keys=False)
    except yaml.representer.RepresenterError as error:
        raise ValueError(f"got a {type(error.args[-1]).__name__}, allowed: text, numbers, lists and mappings") from None


def _load(text: str | bytes, loader: type[_Loader]) -> Any:
    try:
        value = yaml.load(text, loader)
        _count(value, {})
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _count(value: Any, known: dict[int, int]) -> int:
    """How many values there are, those behind an alias once for each alias."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES  # contains itself, unless the next line has set it
        known[id(value)] = 1 + sum(_count(item, known) for item in (value.values() if isinstance(value, dict) else value))
    if known[id(value)] > MOST_VALUES:
        raise yaml.YAMLError(f"aliases that stand for more than {MOST_VALUES:,} values")
    return known[id(value)]


def _refused(why: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, why, node.start_mark)


def _shown(node: yaml.Node) -> str:
    return repr(node.value) if isinstance(node, yaml.ScalarNode) else f"a {type(node).__name__.removesuffix('Node').lower()}"
