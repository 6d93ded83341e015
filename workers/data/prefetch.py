"""Batches made ahead of need by loader processes."""

import contextlib
import multiprocessing
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from multiprocessing import util
from signal import Signals
from typing import Final

from greedypipe.workers.data.batch import NumberedBatches
from greedypipe.workers.data.loader_process import make_batches
from greedypipe.workers.data.passing import Parcel, receive
from greedypipe.workers.data.pretexts.interface import LoadedBatch
from greedypipe.workers.lifeline import start_fork_server

# Long enough for a loader process to start and to decode a large batch from a slow disk.
TIMEOUT_S: Final = 300.0
BATCHES_PER_PROCESS: Final = 2
CLOSE_S: Final = 1.0
"""How long loader processes may take to finish the batch in hand before they are killed."""
FILES_PER_PROCESS: Final = 3
"""Descriptors that a loader process costs the one that it works for."""


class PrefetchedBatches:
    """Has the batches of `NumberedBatches` made by `loader_workers` processes, each up to two batches ahead.

    The processes start with the first reading and stay until `close`; they end with this process, however it ends, and
    leave its signals to it. torch's DataLoader would do for less: it notices after its whole time limit that a process of
    the fork server has died, and passes batches through /dev/shm, which is small in containers.
    """

    def __init__(self, batches: NumberedBatches, loader_workers: int) -> None:
        self._batches = batches
        self._loader_workers = loader_workers
        self._loaders: list[_Loader] = []
        self._reading = 0
        # Before multiprocessing, at the end of this process, waits for its children.
        self._finalizer = util.Finalize(self, _end, (self._loaders,), exitpriority=10)

    def read(self, batch_ids: Iterable[int]) -> Iterator[LoadedBatch]:
        """Starts making batches and returns them in the given order; ends an earlier reading.

        Each `next` waits for a loader process, up to TIMEOUT_S; RuntimeError when it has died or is late.
        """
        self._start()
        self._reading += 1
        for loader in self._loaders:
            loader.forget()
        left = iter(batch_ids)
        turns = deque(
            loader.ask(batch_id) for loader, batch_id in zip(self._each_with_all_it_may_be_ahead(), left, strict=False)
        )
        return self._deliver(left, turns, self._reading)

    def close(self) -> None:
        """Ends the processes and waits for them; safe to call twice."""
        self._reading += 1
        _end(self._loaders)

    def _start(self) -> None:
        if not self._loaders:
            start_fork_server(["__main__", make_batches.__module__])
            make = Parcel.of(self._batches.__getitem__)
            try:
                for _ in range(self._loader_workers):
                    self._loaders.append(_Loader(make))
            finally:
                make.close()

    def _each_with_all_it_may_be_ahead(self) -> Iterator["_Loader"]:
        return chain.from_iterable(repeat(self._loaders, BATCHES_PER_PROCESS))

    def _deliver(self, left: Iterator[int], turns: "deque[_Loader]", reading: int) -> Iterator[LoadedBatch]:
        while turns and reading == self._reading:
            # No name for the batch here: it would keep its memory until the next one is made.
            yield self._take(turns.popleft(), left, turns)

    def _take(self, loader: "_Loader", left: Iterator[int], turns: "deque[_Loader]") -> LoadedBatch:
        batch = loader.take()
        turns.extend(loader.ask(batch_id) for _, batch_id in zip(range(1), left, strict=False))
        return batch


class _Loader:
    """A loader process, as the process that it works for sees it.

    Args:
        make: From a batch_id to its batch.
    """

    def __init__(self, make: Parcel) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=make_batches, args=(theirs,), daemon=True)
        self._asked: deque[int] = deque()
        self._forgotten = 0
        self._process.start()
        theirs.close()
        make.send(self._connection)

    def ask(self, batch_id: int) -> "_Loader":
        """Asks for another batch, to be made after those asked for before. Does not block."""
        self._asked.append(batch_id)
        try:
            self._connection.send(batch_id)
        except ConnectionError:
            raise self._lost(batch_id) from None
        return self

    def forget(self) -> None:
        """Whatever has been asked for and not taken is not needed."""
        self._forgotten = len(self._asked)

    def take(self) -> LoadedBatch:
        """The next batch asked for; blocks until it is made.

        Raises:
            RuntimeError: The process has died, or is late.
        """
        while self._forgotten:
            self._forgotten -= 1
            with contextlib.suppress(Exception):
                self._receive()
        return self._receive()

    def hang_up(self) -> None:
        """Has the process end as soon as it has made the batch in hand."""
        self._connection.close()

    def end(self, deadline: float) -> None:
        """Waits for the end of the process, and kills it where it takes longer than until `deadline` (time.monotonic)."""
        self._process.join(max(0.0, deadline - time.monotonic()))
        self._process.kill()
        self._process.join()
        self._process.close()

    def _receive(self) -> LoadedBatch:
        if not self._connection.poll(TIMEOUT_S):
            name = f"loader process {self._process.pid}"
            raise RuntimeError(f"waited {TIMEOUT_S:g} s for {name} to make batch {self._asked[0]}")
        batch_id = self._asked.popleft()
        try:
            answer = receive(self._connection)
        except (EOFError, ConnectionError):
            raise self._lost(batch_id) from None
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, LoadedBatch)
        return answer

    def _lost(self, batch_id: int) -> RuntimeError:
        self._process.join(CLOSE_S)
        code = self._process.exitcode
        how = f"was killed by signal {Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
        return RuntimeError(f"loader process {self._process.pid} {how} before it had made batch {batch_id}")


def _end(loaders: list[_Loader]) -> None:
    for loader in loaders:
        loader.hang_up()
    deadline = time.monotonic() + CLOSE_S
    while loaders:
        loaders.pop().end(deadline)
