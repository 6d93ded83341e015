"""Families of variants in the configuration, and how a user adds one: `name: package.module:Object`."""

import difflib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, Field, GetCoreSchemaHandler, ValidationInfo, field_validator
from pydantic_core import CoreSchema, core_schema

from greedypipe.pipeline.options import check_call, check_options, refusal
from greedypipe.pipeline.own_code import blaming, resolve, top_package

SectionT = TypeVar("SectionT", bound=BaseModel)


class Own(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """A user's own variant; each family derives its class from this one.

    The object is imported, and its options are checked, when the section is validated: before anything starts.

    Attributes:
        section: Of the configuration, e.g. "head".
        positional: Number of leading arguments that the family supplies when it calls the object.
        keywords: Names of the keyword arguments that it supplies.
    """

    section: ClassVar[str]
    positional: ClassVar[int] = 0
    keywords: ClassVar[tuple[str, ...]] = ()

    name: str = Field(description="your own object on the import path")
    options: dict[str, Any] = Field({}, validate_default=True, description="keyword arguments of your own object")

    @field_validator("name")
    @classmethod
    def _name_is_found(cls, name: str) -> str:
        check_call(name, resolve(name), positional=cls.positional, keywords=cls.keywords)
        return name

    @field_validator("options")
    @classmethod
    def _options_fit(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if name := info.data.get("name"):
            check_options(name, resolve(name), options, positional=cls.positional, keywords=cls.keywords)
        return options

    @property
    def subject(self) -> str:
        """The key with its value, as errors begin."""
        return f"{self.section}.name={self.name}"

    def blamed(self) -> AbstractContextManager[None]:
        """Has what the object's code raises inside become one line of `subject`, see `own_code.blaming`."""
        return blaming(self.subject, top_package(self.name))

    def call(self, *arguments: Any, **keywords: Any) -> Any:
        """Calls the object with its options as further keywords, validated by its `Config` if it has one.

        Raises:
            OwnCodeError: The object raises an error.
        """
        target = resolve(self.name)
        options = check_options(self.name, target, self.options, positional=self.positional, keywords=self.keywords)
        with self.blamed():
            return target(*arguments, **keywords, **options)


def blamed(section: BaseModel) -> AbstractContextManager[None]:
    """As `Own.blamed` where the section names a user's own object; nothing otherwise."""
    return section.blamed() if isinstance(section, Own) else nullcontext()


class Family(Generic[SectionT]):
    """The variants of one section of the configuration, discriminated by its key `name`.

    Annotates a field whose type is the variants' common base: `head: Annotated[HeadConfig, HEADS] = HEADS.default()`.
    A name with a colon chooses `own`; without a name, the default is taken.

    Args:
        kind: What a variant is, for errors, e.g. "network".
        variants: Every known name with the section it chooses; a section may have several names.
        default: Name of the variant in a section that gives none.
        own: The section of a user's own variant: a class derived from `Own` and from the family's base.
    """

    def __init__(self, kind: str, variants: Mapping[str, type[SectionT]], *, default: str, own: type[SectionT]) -> None:
        self.kind = kind
        self.variants = variants
        self.own = own
        self.default_name = default

    def default(self) -> SectionT:
        """The default variant with all its defaults."""
        return self.choose({})

    def variant(self, name: Any) -> type[SectionT] | None:
        """The section that a name chooses; None for an unknown one."""
        if not isinstance(name, str):
            return None
        return self.own if ":" in name else self.variants.get(name)

    def choose(self, keys: Any) -> SectionT:
        """The section of the variant that `keys` name; a validated section is returned as it is.

        Raises:
            ValidationError: The name is unknown, or the keys do not fit its variant.
        """
        sections: tuple[type[SectionT], ...] = (*self.variants.values(), self.own)
        if isinstance(keys, sections):
            return keys
        if not isinstance(keys, Mapping):
            raise refusal(self.kind, [((), keys, f"got {keys!r}, allowed: keys of a {self.kind}")])
        name = keys.get("name", self.default_name)
        if (variant := self.variant(name)) is None:
            raise refusal(self.kind, [(("name",), name, self._unknown(name))])
        return variant.model_validate({**keys, "name": name})

    def _unknown(self, name: Any) -> str:
        near = difflib.get_close_matches(str(name), self.variants, n=1, cutoff=0)[0]
        return (
            f"unknown {self.kind} {name!r}, nearest is {near!r}; allowed: {', '.join(self.variants)}, "
            "or 'package.module:Object'"
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Not pydantic's tagged union: its locations contain the tag, and it cannot name the nearest variant.
        return core_schema.no_info_plain_validator_function(self.choose)
