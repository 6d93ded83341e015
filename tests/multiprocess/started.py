"""A run as its users start it, in processes of its own; and whom it leaves behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from greedypipe.launch.reporting.status_file import read_status
from tests.multiprocess.harness import TINY

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, "-m", "greedypipe", "train", "--stages", "2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "launch/run.py"]
BARE = [sys.executable, "launch/run.py"]
"""A run of one process without a launcher."""
ENDLESS = ["training.epochs=20000", "evaluation.every_epochs=20000", "checkpoint.interval_steps=5"]
DIGITS = [*TINY, *ENDLESS]


def with_loaders(folder: Path) -> list[str]:
    """An endless run whose batches are made by two loader processes, of images that are made in `folder` here."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 4)):
        for name in ("cat", "dog"):
            place = folder / "images" / part / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{number}.png")
    data = ["name=image_folder", f"root={folder / 'images'}", "memory_limit_mb=0", "loader_workers=2"]
    settings = [f"data.{one}" for one in (*data, "batch_size=8", "augment=none")]
    network = ["model.name=mlp", "model.depth=2", "model.hidden=16", "partition.blocks=2"]
    return [*settings, *network, *ENDLESS, "faults.timeout_s=30"]


class Started:
    """A run in a process group of its own, in the folder `run` of `parent`."""

    def __init__(self, parent: Path, command: Sequence[str], *arguments: str) -> None:
        settings = [f"run.folder={parent}", "run.name=run"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.folder = parent / "run"
        self._saves = "checkpoint.interval_steps=0" not in arguments
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            [*command, *arguments, *settings],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
            start_new_session=True,
            **pipes,
        )
        self._seen: set[int] = set()

    def rank(self, rank: int) -> int:
        """The process id of a rank, once it has trained and, where the run saves now and then, a checkpoint is complete."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            is_saved = not self._saves or list(self.folder.glob("checkpoints/*/manifest.json"))
            rows = read_status(self.folder).stages if (self.folder / "status.json").exists() else []
            if is_saved and rows and (row := rows[rank]) and row.step > 0:
                return row.pid
            time.sleep(0.02)
        raise AssertionError(self.process.communicate())

    def end(self) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        out, errors = self.process.communicate(timeout=60)
        return self.process.returncode, out, errors

    def family(self) -> set[int]:
        """All of its processes, the launcher included, and those that it had when this was called before."""
        self._seen |= {self.process.pid, *descendants(self.process.pid)}
        return self._seen

    def kill(self) -> None:
        """Ends whatever is left of it."""
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()


def descendants(ancestor: int) -> set[int]:
    """All processes below one, the fork server and its like included."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, size = {ancestor}, 0
    while size < len(found):
        size, found = len(found), found | {pid for pid, parent in parents.items() if parent in found}
    return found - {ancestor}


def assert_all_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 10
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]
