"""What a user's own object is called with, compared with its signature or its `Config` before the call."""

import contextlib
import difflib
import inspect
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, LiteralString

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from greedypipe.pipeline.own_code import OwnCodeError

Refused = tuple[tuple[str, ...], Any, str]
"""Location below the validated value, input, and message."""


def refusal(title: str, errors: Iterable[Refused], kind: LiteralString = "refused") -> ValidationError:
    """A validation error with one line for each of `errors`, of one type.

    Raised inside a validator, it reports every line at its own location.
    """
    return ValidationError.from_exception_data(
        title,
        [
            # The message is passed as context: pydantic formats the template, and a user's input may contain braces.
            InitErrorDetails(type=PydanticCustomError(kind, "{reason}", {"reason": text}), loc=location, input=got)
            for location, got, text in errors
        ],
    )


WORDS: Final = {
    "tuple_type": "a list, e.g. [1, 2]",
    "list_type": "a list, e.g. [1, 2]",
    "dict_type": "keys with values, e.g. {key: 1}",
}
"""What pydantic calls by names of Python's types, by the types of errors."""


def in_words(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors: what was got, and what is allowed."""
    message = WORDS.get(error["type"], error["msg"].removeprefix("Input should be "))
    if error["type"] == "missing" and isinstance(error["loc"][-1], int):
        message = "a longer list"
    return f"got {_shown(error['input'])}, allowed: {message[:1].lower()}{message[1:]}"


def _shown(value: object) -> str:
    """A value, shortened if somebody put a whole document there."""
    shorten = reprlib.Repr()
    shorten.maxstring = shorten.maxother = shorten.maxlong = 200
    shorten.maxlist = shorten.maxdict = 20
    return shorten.repr(value)


def check_call(name: str, target: Any, *, positional: int = 0, keywords: Iterable[str] = ()) -> None:
    """Checks that a user's own object takes what the run supplies, see `check_options`.

    Raises:
        ValueError: The object cannot be called, or does not accept what the run supplies.
    """
    if not callable(target):
        raise OwnCodeError(name, f"got {type(target).__name__}, allowed: a function or class")
    parameters = _parameters(target)
    if parameters is None:
        return
    kinds, named = {one.kind for one in parameters}, _named(parameters)
    if len(named) < positional and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise ValueError(f"{name} takes {len(named)} arguments, but is called with {positional} and its options")
    refused = sorted(set(keywords) - {one.name for one in named[positional:]})
    if refused and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise ValueError(f"{name} is called with {', '.join(refused)}, which it does not accept")


def check_options(
    name: str, target: Any, options: Mapping[str, Any], *, positional: int = 0, keywords: Iterable[str] = ()
) -> dict[str, Any]:
    """Checks the options of a user's own object, without calling it.

    Args:
        name: The object's name, for errors.
        target: A class with a nested pydantic model `Config`, which then judges the options, or any callable, whose
            signature does: its names, and its annotations where it has any.
        options: The user's options.
        positional: Number of leading arguments the caller supplies.
        keywords: Names of the keyword arguments that the caller supplies.

    Returns:
        The keyword arguments to call the object with: all fields of its `Config`, or the options, converted to the types
        that its signature names.

    Raises:
        ValidationError: One error for each option that is unknown, missing or wrong, located at the option.
    """
    config = getattr(target, "Config", None)
    if isinstance(config, type) and issubclass(config, BaseModel):
        return dict(_validated(name, config, options))
    parameters = _parameters(target)
    if parameters is None:
        return dict(options)
    _bind(name, parameters, options, positional, frozenset(keywords))
    return _converted(name, parameters, options)


def _parameters(target: Any) -> list[inspect.Parameter] | None:
    """Those of a callable, with their annotations where these can be evaluated; None for one written in C."""
    for evaluates in (True, False):
        # Annotations may name what is imported for type checkers only.
        with contextlib.suppress(Exception):
            return list(inspect.signature(target, eval_str=evaluates).parameters.values())
    return None


def _named(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Those but *args and **kwargs."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [parameter for parameter in parameters if parameter.kind not in variadic]


def _validated(name: str, config: type[BaseModel], options: Mapping[str, Any]) -> BaseModel:
    known = {field.alias or key for key, field in config.model_fields.items()}
    errors: list[Refused] = [
        ((key,), value, _unknown_option(name, key, known))
        for key, value in options.items()
        if key not in known and config.model_config.get("extra") != "allow"
    ]
    try:
        valid = config.model_validate({key: value for key, value in options.items() if key in known or not errors})
    except ValidationError as error:
        if not errors:
            raise
        errors += [(tuple(map(str, one["loc"])), one["input"], in_words(one)) for one in error.errors()]
    if errors:
        raise refusal(name, errors)
    return valid


def _bind(
    name: str, parameters: list[inspect.Parameter], options: Mapping[str, Any], positional: int, keywords: frozenset[str]
) -> None:
    takes_any = inspect.Parameter.VAR_KEYWORD in {parameter.kind for parameter in parameters}
    named = _named(parameters)
    free = {parameter.name: parameter for parameter in named[positional:]}
    known = {
        key
        for key, parameter in free.items()
        if key not in keywords and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY
    }
    taken = keywords | {parameter.name for parameter in named[:positional]}
    errors: list[Refused] = [
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


def _converted(name: str, parameters: list[inspect.Parameter], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the types that the signature names, e.g. YAML's list as a tuple."""
    annotations = {one.name: one.annotation for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD}
    converted, errors = dict(options), list[Refused]()
    for key, value in options.items():
        annotation = annotations.get(key, inspect.Parameter.empty)
        if annotation is inspect.Parameter.empty or isinstance(annotation, str):
            continue
        try:
            # A type that pydantic has no rule for is its own instances.
            converted[key] = TypeAdapter(annotation, config={"arbitrary_types_allowed": True}).validate_python(value)
        except ValidationError as error:
            errors += [((key, *map(str, one["loc"])), one["input"], in_words(one)) for one in error.errors()]
        except PydanticUserError:
            continue
    if errors:
        raise refusal(name, errors)
    return converted


def _unknown_option(name: str, key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    allowed = ", ".join(sorted(known)) or "none"
    return f"unknown option of {name}" + (f"; did you mean {near[0]}?" if near else f"; allowed: {allowed}")
