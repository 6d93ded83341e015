"""A try of both ends at a transport that may not work between them: both have it, or both know that it fails."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from torch.distributed import PrefixStore, Store

from greedypipe.workers.links.patience import POLL_S, Patience

VERDICT_S = 1.0
"""How long an end that has failed may take to say so."""
_WORKS = "works"


class Unfit(Exception):
    """The transport does not work between these two ends; `str` says why, in one line."""


class Abandonable(Protocol):
    """One end of a link, or what it is made of."""

    def abandon(self) -> None:
        """Lets go of it without waiting for the other end."""


EndT = TypeVar("EndT", bound=Abandonable)


def try_out(store: Store, end: int, patience: Patience, build: Callable[[Patience], EndT]) -> EndT:
    """What `build` returns, if the other end has built its own; blocks until it has, or has failed.

    Args:
        store: For this link alone.
        end: 0 or 1; the other end has the other number.
        build: Builds this end and tests it against the other; given a patience that is over once the other has failed.

    Raises:
        Unfit: It does not work here, or not there.
        ConnectionError: The other end did not come in time, or is gone; GivenUp if waiting became pointless.
        ValueError: The ends do not belong together.
    """
    store = PrefixStore("trial", store)
    own, other = f"end{end}", f"end{1 - end}"

    def has_failed() -> bool:
        return store.check([other]) and store.get(other).decode() != _WORKS

    try:
        built = build(replace(patience, is_over=lambda: patience.is_over() or has_failed()))
    except ConnectionError:
        # An end that has failed hangs up before it says why.
        deadline = time.monotonic() + VERDICT_S
        while not has_failed():
            if patience.is_over() or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
        raise Unfit(store.get(other).decode()) from None
    except (Unfit, OSError, RuntimeError) as error:
        reason = _one_line(error)
        store.set(own, reason)
        raise Unfit(reason) from error
    store.set(own, _WORKS)
    theirs = patience.read(store, other).decode()
    if theirs != _WORKS:
        built.abandon()
        raise Unfit(theirs)
    return built


def _one_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
