"""The lock of a run's folder: held by the process that writes there, for as long as it lives."""

import contextlib
import errno
import fcntl
import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from greedypipe.launch.config.errors import ConfigError
from greedypipe.workers.telemetry.machine import host_name

LOCK = "lock"
WAIT_S = 2.0
"""How long a process that was just killed may take to be gone."""
LOOK_S = 0.05


class FolderLock:
    """The lock of one folder, while it is entered. The system releases it when the process ends, however that happens.

    Where the file system keeps no locks, that is reported, and nothing is locked.

    Args:
        folder: The run's; exists.
        wait_s: Seconds to wait for another owner to go.
    """

    def __init__(self, folder: Path, wait_s: float = WAIT_S) -> None:
        self._folder = folder
        self._path = folder / LOCK
        self._wait_s = wait_s
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Takes the lock. Blocks, for `wait_s` seconds at most.

        Raises:
            ConfigError: Another process has it; names the process.
        """
        deadline = time.monotonic() + self._wait_s
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            while not self._try():
                if time.monotonic() > deadline:
                    raise ConfigError([f"run.folder: {self._folder} belongs to a run that is alive{self._owner()}"])
                time.sleep(LOOK_S)
        except OSError as error:
            self._close()
            text = f"greedypipe: {self._folder} cannot be locked ({error.strerror}): keep other runs out of it"
            print(text, file=sys.stderr, flush=True)
        except ConfigError:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _try(self) -> bool:
        """Takes the lock if it is free.

        Raises:
            OSError: The file system keeps no locks.
        """
        assert self._descriptor is not None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        # A forked process would go on holding the lock after this one.
        os.register_at_fork(after_in_child=self._close)
        self._note_owner()
        return True

    def _note_owner(self) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(OSError):  # a full disk
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()} on {host_name()}".encode(), 0)

    def _owner(self) -> str:
        assert self._descriptor is not None
        owner = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip()
        return f" ({owner})" if owner.isprintable() and owner else ""

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
