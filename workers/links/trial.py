"""A try of both ends at a transport that may not work between them: both have it, or both know that it fails."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

from torch.distributed import PrefixStore, Store

from greedypipe.workers.links.pacing import BrokenWire
from greedypipe.workers.links.patience import Patience

T = TypeVar("T")
_WORKS = "works"


class Unfit(Exception):
    """The transport does not work between these two ends; `str` says why, in one line."""


def try_out(store: Store, end: int, patience: Patience, build: Callable[[Patience, ExitStack], T]) -> T:
    """What `build` returns, if the other end has built its own; blocks until it has, or has failed.

    Args:
        store: For this link alone.
        end: 0 or 1; the other end has the other number.
        build: Builds this end and tests it against the other. Given a patience that is over once the other has failed, and a
            stack for what is to be closed if this end or the other one fails: after the other one has been told why, so
            that it does not take this end for lost.

    Raises:
        Unfit: It does not work here, or not there.
        ConnectionError: The other end did not come in time, or is gone; GivenUp if waiting became pointless.
        ValueError: The ends do not belong together.
    """
    store = PrefixStore("trial", store)
    own, other = f"end{end}", f"end{1 - end}"

    def has_failed() -> bool:
        return store.check([other]) and store.get(other).decode() != _WORKS

    with ExitStack() as opened:
        try:
            built = build(replace(patience, is_over=lambda: patience.is_over() or has_failed()), opened)
        except (Unfit, BrokenWire) as error:
            raise _told(store, own, error) from error
        except ConnectionError:
            if has_failed():
                raise Unfit(store.get(other).decode()) from None
            raise
        except (OSError, RuntimeError) as error:
            raise _told(store, own, error) from error
        store.set(own, _WORKS)
        theirs = patience.read(store, other).decode()
        if theirs != _WORKS:
            raise Unfit(theirs)
        opened.pop_all()
    return built


def _told(store: Store, own: str, error: BaseException) -> Unfit:
    """The error to raise, when the other end has been told of it."""
    reason = _one_line(error)
    store.set(own, reason)
    return Unfit(reason)


def _one_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
