"""Blocks on disk: one file each, named by the block's index, never by rank."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any, cast

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from greedypipe.workers.atomic import reason_of, replacing
from greedypipe.workers.devices.copies import ClonedStates, Copies
from greedypipe.workers.telemetry.records import Saved

FINAL = "final"
"""Name of the checkpoint at the end of a run."""


_KEYS = {"index": int, "turn": int, "last_layer": str, "layers": dict, "method": dict, "parameters": list, "optimizer": dict}


class EndNotSaved(OSError):
    """The end of a run cannot be saved: all that it has trained would be lost. Names the path and the reason."""


class CheckpointConfig(BaseModel, frozen=True, extra="forbid", defer_build=True):
    """Checkpoints during the run; its final state is saved in any case."""

    interval_steps: int = Field(0, ge=0, description="training batches between checkpoints; 0: none before the end")
    keep: int = Field(
        3,
        ge=1,
        description="number of newest checkpoints to keep; the final one is kept as well and, with a validation part, the "
        "most accurate one",
    )


class Saver:
    """Saves the blocks of one stage while they train: the caller waits only for a copy in memory.

    | thread | consumes          | waits for                       | unblocked by |
    |--------|-------------------|---------------------------------|--------------|
    | saver  | copies            | the disk                        | the disk     |
    | main   | -                 | the end of the save before this | the saver    |

    A failed write does not end the training, and blocks that are not finite are not written: failures are reported the same
    way as successes.

    A mark comes twice where stage 0 has come back. What is reported of it and still there stands: its manifest may have
    been written meanwhile, and names what was reported first.

    Args:
        root: Folder of the run's checkpoints.
        report: Called with the checkpoint's name and the outcome, by `save` in the saver's thread.
        reported: Returns what has been reported of a checkpoint by this process or an earlier life of it; called in the
            saver's thread.
        copies: What is written; None: clones on the CPU.
    """

    def __init__(
        self,
        root: Path,
        report: Callable[[str, Saved], None],
        reported: Callable[[str], Saved | None] = lambda name: None,
        copies: Copies | None = None,
    ) -> None:
        self._root = root
        self._report = report
        self._reported = reported
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._last: Future[None] | None = None
        self._copies = copies or ClonedStates()
        self.stalled_s = 0.0
        """Seconds that calls of `save` have blocked."""

    def save(self, name: str, states: Sequence[dict[str, Any]]) -> None:
        """Starts saving the states of blocks as they are; blocks while the previous checkpoint is still being written."""
        started = time.perf_counter()
        self.wait()
        self._last = self._executor.submit(self._try_to_write, name, self._copies.take(states))
        self.stalled_s += time.perf_counter() - started

    def save_now(self, name: str, states: Sequence[dict[str, Any]]) -> None:
        """Saves the states of blocks in the calling thread; blocks for the disk.

        Raises:
            EndNotSaved: The files could not be written.
            FloatingPointError: A block is not finite.
        """
        try:
            saved = self._write(name, states)
        except OSError as error:
            raise EndNotSaved(f"{self._root / name} cannot be written: {reason_of(error)}") from error
        self._report(name, saved)

    def close(self) -> None:
        """Blocks until everything is on disk."""
        self._executor.shutdown()

    def wait(self) -> None:
        """Waits until what has been given to `save` is on disk, or has failed."""
        if self._last:
            self._last.result()

    def _try_to_write(self, name: str, states: Sequence[dict[str, Any]]) -> None:
        try:
            self._copies.wait()
            saved = self._standing(name) or self._write(name, states)
        except TimeoutError as error:
            saved = Saved(failure=str(error))
        except OSError as error:
            saved = Saved(failure=f"{self._root / name} cannot be written: {reason_of(error)}")
        except (RuntimeError, FloatingPointError) as error:
            saved = Saved(failure=str(error).splitlines()[0])
        self._report(name, saved)

    def _standing(self, name: str) -> Saved | None:
        saved = self._reported(name)
        return saved if saved and saved.files and stands(self._root / name, saved) else None

    def _write(self, name: str, states: Sequence[dict[str, Any]]) -> Saved:
        for state in states:
            if bad := not_finite(state):
                raise FloatingPointError(f"block {state['index']}: {bad}")
        files = dict(write_block(self._root / name, state) for state in states)
        return Saved(files, {state["index"]: state["turn"] for state in states})


def stands(folder: Path, saved: Saved) -> bool:
    """Whether all files of a stage's part are in a checkpoint's folder as they were saved; reads all of their bytes."""
    return all(_is_whole(folder / name, digest) for name, digest in saved.files.items())


def _is_whole(path: Path, digest: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except OSError:
        return False


def block_file(index: int) -> str:
    """The name of the file that holds a block."""
    return f"block{index}.pt"


def write_block(folder: Path, state: dict[str, Any]) -> tuple[str, str]:
    """Writes a block's state to a file that is either whole or absent. Blocks for the disk.

    Returns:
        The file's name and its SHA-256.

    Raises:
        OSError: The write failed; names the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / block_file(state["index"])
    with replacing(path) as file:
        digesting = _DigestingFile(file)
        try:
            torch.save(state, cast(IO[bytes], digesting))
        except RuntimeError:
            # torch's archive writer replaces the reason of a failed write by one of its own.
            if digesting.error:
                raise digesting.error from None
            raise
    return path.name, digesting.digest.hexdigest()


class _DigestingFile:
    """What torch.save needs of a file: computes the SHA-256 of what is written, and keeps the reason of a failed write."""

    def __init__(self, file: BufferedRandom) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def read_block(path: Path) -> dict[str, Any]:
    """Maps a block's state, a `Block.state_dict`, onto the CPU; what is not used is not read. Nothing is unpickled but
    tensors and plain values.

    Raises:
        ValueError: The file holds no block; names it.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch's reader raises whatever the bytes lead it to
        raise ValueError(f"{path} holds no block: {type(error).__name__}: {_first_line(error)}") from None
    if not isinstance(state, dict) or not all(isinstance(state.get(key), kind) for key, kind in _KEYS.items()):
        raise ValueError(f"{path} holds no block: got a {type(state).__name__} without a block's keys")
    return state


def load_blocks(folder: Path) -> list[dict[str, Any]]:
    """Memory-maps the states of all blocks, in the network's order, on the CPU; see `read_block`.

    Raises:
        ValueError: A block, or every block, is missing, or a file holds none.
    """
    states: list[dict[str, Any]] = []
    while (path := folder / block_file(len(states))).is_file():
        states.append(read_block(path))
    found = len(list(folder.glob("block*.pt")))
    if not states or found != len(states):
        raise ValueError(f"{folder} does not hold the blocks of a whole network: {found} files, block {len(states)} missing")
    return states


def not_finite(state: Mapping[str, Any]) -> str:
    """What training cannot go on from in a block's state: NaN anywhere, or infinity in what is trained; empty where there
    is none. Synchronises with the tensors' device.
    """
    named = [(key, name, value) for key in ("layers", "method") for name, value in state[key].items()]
    for key, name, value in named:
        full = name if key == "layers" else f"method.{name}"
        if _is_bad(value, is_trained=full in state["parameters"]):
            return f"{full} is not finite"
    for number, entries in state["optimizer"].get("state", {}).items():
        if any(_is_bad(value, is_trained=True) for value in entries.values()):
            return f"the optimizer's state of parameter {number} is not finite"
    held = {key: state[key] for key in ("others", "accumulated", "kept", "line", "codec") if key in state}
    return next((f"what it holds as {key} is not finite" for key, value in held.items() if _has_nan(value)), "")


def _has_nan(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(_has_nan(entry) for entry in (value.values() if isinstance(value, dict) else value))
    return _is_bad(value, is_trained=False)


def _is_bad(value: Any, *, is_trained: bool) -> bool:
    """Buffers may hold infinity: masks do."""
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        return False
    return not bool(value.isfinite().all()) if is_trained else bool(value.isnan().any())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
