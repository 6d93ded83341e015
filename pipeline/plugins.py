"""Families of variants in the configuration, and how a user adds one: `name: package.module:Object`."""

import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, Field, GetCoreSchemaHandler, ValidationError, ValidationInfo, field_validator
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

SectionT = TypeVar("SectionT", bound=BaseModel)


class Own(BaseModel, frozen=True, extra="forbid"):
    """A user's own variant; each family derives its class from this one.

    The object is imported, and its options are checked, when the section is validated: before anything starts.

    Attributes:
        positional: Number of leading arguments that the family supplies when it calls the object.
        keywords: Names of the keyword arguments that it supplies.
    """

    positional: ClassVar[int] = 0
    keywords: ClassVar[tuple[str, ...]] = ()

    name: str = Field(description="your own object on the import path")
    options: dict[str, Any] = Field({}, validate_default=True, description="keyword arguments of your own object")

    @field_validator("name")
    @classmethod
    def _name_is_found(cls, name: str) -> str:
        resolve(name)
        return name

    @field_validator("options")
    @classmethod
    def _options_fit(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if name := info.data.get("name"):
            check_options(name, resolve(name), options, positional=cls.positional, keywords=cls.keywords)
        return options

    def call(self, *arguments: Any, **keywords: Any) -> Any:
        """Calls the object with its options as further keywords, validated by its `Config` if it has one."""
        target = resolve(self.name)
        options = check_options(self.name, target, self.options, positional=self.positional, keywords=self.keywords)
        return target(*arguments, **keywords, **dict(options))


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


def refusal(title: str, errors: Iterable[tuple[tuple[str, ...], Any, str]]) -> ValidationError:
    """A validation error with one line for each of `errors`: location below the validated value, input, and message.

    Raised inside a validator, it reports every line at its own location.
    """
    return ValidationError.from_exception_data(
        title,
        [
            # The message is passed as context: pydantic formats the template, and a user's input may contain braces.
            InitErrorDetails(type=PydanticCustomError("refused", "{reason}", {"reason": text}), loc=location, input=got)
            for location, got, text in errors
        ],
    )


def resolve(name: str) -> Any:
    """Imports the object that `package.module:Object` names.

    Raises:
        ValueError: The name has another form, or there is no such module or object. Errors from inside the module are
            propagated unchanged.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise ValueError(f"got {name!r}, allowed: 'package.module:Object'")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module was found, but not something that it imports
        raise ValueError(f"{name}: no module {error.name!r} on the import path") from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name}: module {module_name!r} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def check_options(
    name: str, target: Any, options: Mapping[str, Any], *, positional: int = 0, keywords: Iterable[str] = ()
) -> BaseModel | dict[str, Any]:
    """Checks the options of a user's own object, without calling it.

    Args:
        name: The object's name, for errors.
        target: A class with a nested pydantic model `Config`, which then judges the options, or any callable, to whose
            signature they are bound.
        options: The user's options.
        positional: Number of leading arguments that the caller supplies.
        keywords: Names of the keyword arguments that the caller supplies.

    Returns:
        The validated `Config`, or the options as keyword arguments.

    Raises:
        ValidationError: One error for each option that is unknown, missing or wrong, located at the option.
        ValueError: The object cannot be called, or does not accept what the caller supplies.
    """
    config = getattr(target, "Config", None)
    if isinstance(config, type) and issubclass(config, BaseModel):
        return _validated(name, config, options)
    if not callable(target):
        raise ValueError(f"{name}: got {type(target).__name__}, allowed: a function or class")
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except ValueError:  # written in C, without a signature
        return dict(options)
    _bind(name, parameters, options, positional, frozenset(keywords))
    return dict(options)


def _validated(name: str, config: type[BaseModel], options: Mapping[str, Any]) -> BaseModel:
    known = {field.alias or key for key, field in config.model_fields.items()}
    errors: list[tuple[tuple[str, ...], Any, str]] = [
        ((key,), value, _unknown_option(name, key, known))
        for key, value in options.items()
        if key not in known and config.model_config.get("extra") != "allow"
    ]
    try:
        valid = config.model_validate({key: value for key, value in options.items() if key in known or not errors})
    except ValidationError as error:
        if not errors:
            raise
        errors += [(tuple(map(str, one["loc"])), one["input"], one["msg"]) for one in error.errors()]
    if errors:
        raise refusal(name, errors)
    return valid


def _bind(
    name: str, parameters: list[inspect.Parameter], options: Mapping[str, Any], positional: int, keywords: frozenset[str]
) -> None:
    kinds = {parameter.kind for parameter in parameters}
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [parameter for parameter in parameters if parameter.kind not in variadic]
    if len(named) < positional and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise ValueError(f"{name} takes {len(named)} arguments, but is called with {positional} and its options")
    free = {parameter.name: parameter for parameter in named[positional:]}
    refused = sorted(keywords - free.keys())
    if refused and not takes_any:
        raise ValueError(f"{name} is called with {', '.join(refused)}, which it does not accept")
    known = {
        key
        for key, parameter in free.items()
        if key not in keywords and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY
    }
    taken = keywords | {parameter.name for parameter in named[:positional]}
    errors = [
        ((key,), value, f"{name} gets {key!r} from the run itself" if key in taken else _unknown_option(name, key, known))
        for key, value in options.items()
        if key in taken or (key not in known and not takes_any)
    ]
    errors += [
        ((key,), None, f"missing: {name} needs it")
        for key, parameter in free.items()
        if parameter.default is inspect.Parameter.empty and key not in {*keywords, *options}
    ]
    if errors:
        raise refusal(name, errors)


def _unknown_option(name: str, key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    allowed = ", ".join(sorted(known)) or "none"
    return f"unknown option of {name}" + (f"; did you mean {near[0]}?" if near else f"; allowed: {allowed}")
