"""All keys of the configuration, including those of every variant."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from greedypipe.launch.config.sections import RunConfig
from greedypipe.pipeline.plugins import Family

OWN = "package.module:Object"
"""Stands for the name of a user's own variant."""


@dataclass(frozen=True)
class Key:
    """One form of a key, as it occurs in some variants of its section.

    Attributes:
        section: Name of the section.
        name: Name of the key in it.
        field: Its type, default and description.
        variants: Names of the variants that have the key in this form; empty in a section without variants.
    """

    section: str
    name: str
    field: FieldInfo
    variants: tuple[str, ...]


def all_keys() -> dict[str, tuple[Key, ...]]:
    """Every key as section.key, in the order of the sections, with the forms that it has in different variants."""
    return {f"{section}.{name}": forms for section in RunConfig.model_fields for name, forms in _keys_of(section).items()}


def family_of(section: str) -> Family[Any] | None:
    """The family of a section's variants; None for a section without variants, or an unknown one."""
    if section not in RunConfig.model_fields:
        return None
    return next((one for one in RunConfig.model_fields[section].metadata if isinstance(one, Family)), None)


def variants_of(section: str) -> dict[type[BaseModel], tuple[str, ...]]:
    """The classes of a section with the names that choose them; a single class without a name if it has no variants."""
    family = family_of(section)
    if family is None:
        only: Any = RunConfig.model_fields[section].annotation
        return {only: ()}
    classes: dict[type[BaseModel], tuple[str, ...]] = {}
    for name, variant in (*family.variants.items(), (OWN, family.own)):
        classes[variant] = (*classes.get(variant, ()), name)
    return classes


def names_with(key: str) -> tuple[str, ...]:
    """Names of the variants that have a key, given as section.key; empty if there are none."""
    return tuple(name for form in all_keys().get(key, ()) for name in form.variants)


def is_nested(key: str) -> bool:
    """Whether the value of a key, given as section.key, has variants with keys of their own."""
    return any(isinstance(one, Family) for form in all_keys().get(key, ()) for one in form.field.metadata)


def _keys_of(section: str) -> dict[str, tuple[Key, ...]]:
    found: dict[str, list[Key]] = {}
    for name, field, variants in _fields_of(section):
        forms = found.setdefault(name, [])
        same = [form for form in forms if _is_same(form.field, field)]
        for form in same:
            forms[forms.index(form)] = Key(section, name, form.field, (*form.variants, *variants))
        if not same:
            forms.append(Key(section, name, field, variants))
    return {name: tuple(forms) for name, forms in found.items()}


def _fields_of(section: str) -> Iterator[tuple[str, FieldInfo, tuple[str, ...]]]:
    for variant, names in variants_of(section).items():
        for name, field in variant.model_fields.items():
            yield name, field, names


def _is_same(one: FieldInfo, other: FieldInfo) -> bool:
    return (one.annotation, one.default, one.description, one.metadata) == (
        other.annotation,
        other.default,
        other.description,
        other.metadata,
    )
