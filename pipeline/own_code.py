"""A user's own code: objects found as `package.module:Object`, and what goes wrong inside as one line."""

import contextlib
import difflib
import importlib
import traceback
from collections.abc import Iterator
from typing import Any


class OwnCodeError(ValueError):
    """What a user's own code has raised, or returned, that it must not; `str` is one line.

    Attributes:
        reason: The line without its subject.
    """

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(f"{subject}: {reason}")
        self.reason = reason


@contextlib.contextmanager
def blaming(subject: str, package: str) -> Iterator[None]:
    """Turns what a user's code raises inside into one line that names it with file and line.

    Args:
        subject: Beginning of the line, e.g. "head.name=mylab.heads:conv".
        package: Top-level package of the user's code. A ValueError that comes from none of its lines is somebody else's
            finding, and passes as it is.

    Raises:
        OwnCodeError: Anything but an interrupt was raised.
    """
    try:
        yield
    except OwnCodeError:
        raise
    except (Exception, SystemExit) as error:
        place = _place(error, package)
        if place is None and isinstance(error, ValueError):
            raise
        text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
        reason = f"{type(error).__name__}: {text}" + (f" ({place})" if place else "")
        raise OwnCodeError(subject, reason) from error


def _place(error: BaseException, package: str) -> str | None:
    """file:line of the innermost line of the user's package; None where none took part."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    places = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if top_package(frame.f_globals.get("__name__", "")) == package
    ]
    return places[-1] if places else None


def top_package(name: str) -> str:
    """The first part of a module's or an object's path: mylab of mylab.heads:conv."""
    return name.partition(":")[0].partition(".")[0]


def resolve(name: str) -> Any:
    """Imports the object that `package.module:Object` names.

    Raises:
        ValueError: One line: the name has another form, there is no such module or object, or the module cannot be
            imported.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise ValueError(f"got {name!r}, allowed: 'package.module:Object'")
    with blaming(name, top_package(name)):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not f"{module_name}.".startswith(f"{error.name}."):
                raise  # the module was found, but not something that it imports
            raise OwnCodeError(name, f"no module {error.name!r} on the import path") from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise OwnCodeError(name, f"module {module_name!r} has no {attribute!r}{hint}")
    return getattr(module, attribute)
