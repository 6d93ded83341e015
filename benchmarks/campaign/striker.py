"""How a stage is struck from outside, at its step."""

import os
import signal
import threading
import time
from pathlib import Path

from benchmarks.campaign.trials import SCRIPTED, Trial
from greedypipe.launch.checkpoints.manifest import complete_folders
from greedypipe.launch.reporting.status_file import read_status


class Striker:
    """Waits in a thread until a stage has come to its step, and strikes it from outside."""

    def __init__(self, trial: Trial, folder: Path, timeout_s: float) -> None:
        self._trial = trial
        self._folder = folder
        self._timeout_s = timeout_s
        self.pids: list[int] = []
        self.struck_s: float | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits for the thread, a second at most."""
        self._thread.join(1)

    def _run(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        metrics = self._folder / "metrics" / f"stage{self._trial.stage}.jsonl"
        while time.monotonic() < deadline:
            if metrics.exists() and (self._folder / "status.json").exists():
                rows = read_status(self._folder).stages
                self.pids = [row.pid for row in rows if row]
                if all(rows) and metrics.read_text(encoding="utf-8").count("\n") >= self._trial.step:
                    break
            time.sleep(0.005)
        if self._trial.fault not in SCRIPTED and not self._trial.slowness and self.pids:
            self._strike(self.pids[self._trial.stage])

    def _strike(self, pid: int) -> None:
        self.struck_s = time.time()
        try:
            if self._trial.fault.startswith("SIGSTOP"):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(1)
                os.kill(pid, signal.SIGCONT)
            else:
                if self._trial.fault == "truncated checkpoint" and self._trial.recovery == "isolate":
                    truncate_newest(self._folder)
                os.kill(pid, signal.SIGTERM if self._trial.fault == "SIGTERM" else signal.SIGKILL)
        except ProcessLookupError:
            self.struck_s = None


def truncate_newest(folder: Path) -> None:
    """Cuts a file of the newest complete checkpoint in half."""
    newest = complete_folders(folder)[:1]
    for checkpoint in newest:
        file = checkpoint / "block1.pt"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
