"""How a stage is struck from outside, at its step."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from benchmarks.campaign.trials import SCRIPTED, Trial
from greedypipe.launch.checkpoints.manifest import MANIFEST, complete_folders
from greedypipe.launch.reporting.status_file import read_status


class Striker:
    """Waits in a thread until a stage has come to its step, and strikes it from outside."""

    def __init__(self, trial: Trial, folder: Path, timeout_s: float) -> None:
        self._trial = trial
        self._folder = folder
        self._timeout_s = timeout_s
        self.pids: list[int] = []
        self.struck_s: float | None = None
        self.launcher: subprocess.Popen[bytes] | None = None
        """Of the ranks, where it is a process of its own."""
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
        if self._trial.fault not in SCRIPTED and not self._trial.strikes_itself and self.pids:
            self._strike(self.pids[self._trial.stage])

    def _strike(self, pid: int) -> None:
        self.struck_s = time.time()
        try:
            if self._trial.fault.startswith("SIGSTOP"):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(1)
                os.kill(pid, signal.SIGCONT)
            elif self._trial.fault == "SIGTERM to all groups":
                for one in self.pids:
                    os.killpg(os.getpgid(one), signal.SIGTERM)
            elif self._trial.fault == "killed launcher":
                assert self.launcher
                self.launcher.kill()
            else:
                if self._trial.damages and self._trial.recovery == "isolate":
                    damage_newest(self._folder, self._trial)
                os.kill(pid, signal.SIGTERM if self._trial.fault == "SIGTERM" else signal.SIGKILL)
        except ProcessLookupError:
            self.struck_s = None


def damage_newest(folder: Path, trial: Trial) -> None:
    """Cuts a file of the newest complete checkpoint in half, or changes a bit of it or of its manifest."""
    for checkpoint in complete_folders(folder)[:1]:
        file = checkpoint / ("block1.pt" if trial.fault == "truncated checkpoint" or trial.step % 2 else MANIFEST)
        content = bytearray(file.read_bytes())
        if trial.fault == "truncated checkpoint":
            content = content[: len(content) // 2]
        else:
            content[trial.step * 97 % len(content)] ^= 1
        file.write_bytes(content)
