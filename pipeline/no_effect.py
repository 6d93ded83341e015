"""The error of a key that another key makes idle."""

from pydantic_core import PydanticCustomError

NO_EFFECT = "no_effect"
"""Type of the error. `buffers`, which imports nothing of ours, raises it too."""


def no_effect(why: str) -> PydanticCustomError:
    """For validators: a key was set that has no effect, because of what another key says.

    A key of the configuration file that a command-line override makes idle is dropped (launch.config.idle).
    """
    return PydanticCustomError(NO_EFFECT, "{why}", {"why": why})
