"""What a configuration may not hold, whatever its key: text and truth values that are legal YAML but mean nothing here."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from greedypipe.launch.config.keys import all_keys
from greedypipe.launch.config.numbers import OPTIONS


def unusable(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every key, section.key, with a value that no key may have, and what is wrong with it.

    Args:
        tree: The sections as they were read.
    """
    for section, keys in tree.items():
        for name, value in keys.items() if isinstance(keys, dict) else ():
            key = f"{section}.{name}"
            for leaf in _leaves(value):
                if problem := _problem(key, leaf, is_own=name == OPTIONS):
                    yield key, problem


def _problem(key: str, value: Any, is_own: bool) -> str:
    if isinstance(value, str):
        return _problem_of_text(value, is_own)
    if isinstance(value, bool) and not is_own and _takes_numbers_alone(key):
        return f"got {str(value).lower()}, allowed: a number"
    return ""


def _problem_of_text(text: str, is_own: bool) -> str:
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        return f"got {text!r}, allowed: text in UTF-8"
    if not is_own and not all(character.isprintable() for character in text):
        return f"got {text!r}, allowed: text without control characters"
    return ""


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    else:
        yield value


def _takes_numbers_alone(key: str) -> bool:
    """Whether a key is of numbers, or lists of them: pydantic takes true for 1 there."""
    kinds = set(_kinds(form.field.annotation for form in all_keys().get(key, ())))
    return bool(kinds & {int, float}) and bool not in kinds


def _kinds(annotations: Iterable[Any]) -> Iterator[Any]:
    for annotation in annotations:
        yield annotation
        yield from _kinds(get_args(annotation))
