"""Blocks on disk: one file each, named by the block's index, never by rank."""

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from greedypipe.pipeline.block import Block
from greedypipe.workers.atomic import replacing
from greedypipe.workers.telemetry.records import Saved

FINAL = "final"
"""Name of the checkpoint at the end of a run."""


class CheckpointConfig(BaseModel, frozen=True, extra="forbid"):
    """Checkpoints during the run; its final state is saved in any case."""

    interval_steps: int = Field(0, ge=0, description="training batches between checkpoints; 0: none before the end")
    keep: int = Field(
        3, ge=1, description="number of newest checkpoints to keep; the final and the most accurate one are kept as well"
    )


class Saver:
    """Saves the blocks of one stage while they train: the caller waits only for a copy in memory.

    | thread | consumes          | waits for                       | unblocked by |
    |--------|-------------------|---------------------------------|--------------|
    | saver  | copies            | the disk                        | the disk     |
    | main   | -                 | the end of the save before this | the saver    |

    A failed write does not end the training: failures are reported the same way as successes.

    Args:
        root: Folder of the run's checkpoints.
        report: Called with the checkpoint's name and the outcome, by `save` in the saver's thread.
    """

    def __init__(self, root: Path, report: Callable[[str, Saved], None]) -> None:
        self._root = root
        self._report = report
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._last: Future[None] | None = None
        self._copies: Any = None
        self.stalled_s = 0.0
        """Seconds that calls of `save` have blocked."""

    def save(self, name: str, blocks: Sequence[Block]) -> None:
        """Starts saving the blocks as they are; blocks while the previous checkpoint is still being written."""
        started = time.perf_counter()
        self._wait()
        self._copies = copied([block.state_dict() for block in blocks], self._copies)
        self._last = self._executor.submit(self._try_to_write, name, self._copies)
        self.stalled_s += time.perf_counter() - started

    def save_now(self, name: str, blocks: Sequence[Block]) -> None:
        """Saves the blocks in the calling thread; blocks for the disk.

        Raises:
            OSError, RuntimeError: The files could not be written; torch raises the latter.
        """
        self._report(name, self._write(name, [block.state_dict() for block in blocks]))

    def close(self) -> None:
        """Blocks until everything is on disk."""
        self._executor.shutdown()

    def _wait(self) -> None:
        if self._last:
            self._last.result()

    def _try_to_write(self, name: str, states: Sequence[dict[str, Any]]) -> None:
        try:
            saved = self._write(name, states)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its archive writer
            saved = Saved(failure=f"{type(error).__name__}: {str(error).splitlines()[0]}")
        self._report(name, saved)

    def _write(self, name: str, states: Sequence[dict[str, Any]]) -> Saved:
        files = dict(write_block(self._root / name, state) for state in states)
        return Saved(files, {state["index"]: state["turn"] for state in states})


def copied(value: Any, into: Any) -> Any:
    """Copies nested dictionaries and lists of tensors, into the memory of `into`, an earlier copy, wherever that has a
    tensor of the same shape and dtype in the same place.

    Fresh memory would come from what a step has just freed (workers.memory), and the next step would have to map new
    pages instead.
    """
    if isinstance(value, Tensor):
        fits = isinstance(into, Tensor) and (into.shape, into.dtype) == (value.shape, value.dtype)
        return into.copy_(value) if fits else value.detach().clone()
    if isinstance(value, dict):
        known = into if isinstance(into, dict) else {}
        return {key: copied(entry, known.get(key)) for key, entry in value.items()}
    if isinstance(value, list):
        earlier = into if isinstance(into, list) and len(into) == len(value) else [None] * len(value)
        return [copied(entry, known) for entry, known in zip(value, earlier, strict=True)]
    return value


def write_block(folder: Path, state: dict[str, Any]) -> tuple[str, str]:
    """Writes a block's state to a file that is either whole or absent. Blocks for the disk.

    Returns:
        The file's name and its SHA-256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"block{state['index']}.pt"
    with replacing(path) as file:
        torch.save(state, file)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.name, digest


def load_blocks(folder: Path) -> list[dict[str, Any]]:
    """Memory-maps the states of all blocks, in the network's order, on the CPU; only what is used is read.

    Raises:
        ValueError: A block, or every block, is missing.
    """
    states: list[dict[str, Any]] = []
    while (path := folder / f"block{len(states)}.pt").is_file():
        states.append(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    found = len(list(folder.glob("block*.pt")))
    if not states or found != len(states):
        raise ValueError(f"{folder} does not hold the blocks of a whole network: {found} files, block {len(states)} missing")
    return states
