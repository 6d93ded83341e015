"""The text of --help: one line per key with its default; the keys of a variant come under its name."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Literal, get_args, get_origin

import yaml

from greedypipe.launch.config.keys import Key, all_keys, family_of, variants_of
from greedypipe.launch.config.sections import RunConfig

_WIDTH, _COLUMN = 125, 44


def describe_keys() -> str:
    """One line per key with its default, for --help."""
    forms = [form for forms in all_keys().values() for form in forms]
    lines: list[str] = []
    for section, group in groupby(forms, key=lambda form: form.section):
        keys = list(group)
        described = RunConfig.model_fields[section]
        lines += ["", f"{section}: {described.description or _summary(described.annotation)}"]
        lines += _with_variants(section, keys) if family_of(section) else map(_line, keys)
    return "\n".join(lines)


def _with_variants(section: str, keys: Sequence[Key]) -> Iterator[str]:
    """The key `name` and what each name chooses; then the keys of all variants, then those of some, under their names."""
    family, classes = family_of(section), variants_of(section)
    assert family is not None
    yield _entry(f"  {section}.name={family.default_name}", f"the {family.kind}, one of")
    for variant, names in classes.items():
        yield from textwrap.wrap(
            f"{', '.join(names)}: {_summary(variant)}", _WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 6
        )
    everywhere = sum(map(len, classes.values()))
    others = [key for key in keys if key.name != "name"]
    others.sort(key=lambda key: (-len(key.variants), key.variants))
    for names, group in groupby(others, key=lambda key: key.variants):
        if len(names) == everywhere:
            yield from map(_line, group)
        else:
            heading = f"with {section}.name={', '.join(names)}:"
            yield from textwrap.wrap(heading, _WIDTH, initial_indent=" " * 2, subsequent_indent=" " * 6)
            yield from (f"  {_line(key, _COLUMN - 2)}" for key in group)


def _line(key: Key, column: int = _COLUMN) -> str:
    default = yaml.safe_dump(key.field.default, default_flow_style=True).splitlines()[0]
    if isinstance(key.field.default, tuple):
        default = str(list(key.field.default))
    return _entry(f"  {key.section}.{key.name}={default}", f"{key.field.description}{_choices(key.field)}", column)


def _entry(left: str, right: str, column: int = _COLUMN) -> str:
    lines = textwrap.wrap(right, _WIDTH - _COLUMN - 1, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * (_COLUMN + 1)}".join([f"{left.ljust(column)} {lines[0]}", *lines[1:]])


def _choices(field: Any) -> str:
    """The allowed values, unless the description names them all."""
    choices = [str(choice) for choice in get_args(field.annotation)] if get_origin(field.annotation) is Literal else []
    return "" if all(choice in field.description for choice in choices) else f" ({' | '.join(choices)})"


def _summary(model: Any) -> str:
    text: str = model.__doc__
    return text.splitlines()[0]
