"""The disk that a trial's run is written to: an ordinary one, or a small one that fills up."""

import subprocess
from pathlib import Path
from typing import Self

from benchmarks.campaign.trials import Trial

SMALLEST_KIB, STEP_KIB = 400, 8
WIDE = "1g"


class Room:
    """Where a run is written. With "full tmpfs" a file system in memory of its own (root), whose size follows from the
    trial's step: it is full early or late in the run, and wide enough from `widen` on.

    Attributes:
        folder: The run's; not made.
    """

    def __init__(self, trial: Trial, folder: Path) -> None:
        self._is_small = trial.fault == "full tmpfs"
        self._size = f"{SMALLEST_KIB + STEP_KIB * trial.step}k"
        self._mount = folder
        self.folder = folder / "run" if self._is_small else folder

    def __enter__(self) -> Self:
        if self._is_small:
            self._mount.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self._size}", "campaign", self._mount], check=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_small:
            subprocess.run(["umount", "--lazy", self._mount], check=True)

    def widen(self) -> None:
        """Makes room, as whoever looks after the disk would, before the run is started again."""
        if self._is_small:
            subprocess.run(["mount", "-o", f"remount,size={WIDE}", self._mount], check=True)
