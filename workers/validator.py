"""Validation of records that were read as JSON."""

from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


class Validator(Generic[T]):
    """Reads JSON as a type. pydantic's validator is built at the first use, so that most of a program's start goes without.

    Args:
        kind: The type, or a union of types.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return TypeAdapter(self._kind)

    def validate_json(self, text: bytes | str) -> T:
        """The value that a text stands for.

        Raises:
            pydantic.ValidationError: The text is of another type; a ValueError.
        """
        return self._adapter.validate_json(text)
