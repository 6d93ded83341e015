"""A process of a run that kills itself at a named point of its work, once: the edges that no outside striker hits."""

import importlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A call: a function by its module and its name in it, and which of its calls."""

    module: str
    name: str
    after: bool
    call: int = 1


POINTS = {
    "begin": Point("launch.process.build_stage", "Stage.run", False),
    "receiver.before": Point("launch.process.connect_edges", "StageLinks.receiver", False),
    "receiver.after": Point("launch.process.connect_edges", "StageLinks.receiver", True),
    "sender.before": Point("launch.process.connect_edges", "StageLinks.sender", False),
    "sender.after": Point("launch.process.connect_edges", "StageLinks.sender", True),
    "gloo": Point("workers.links.gloo", "make_gloo_group", False),
    "gloo.replicas": Point("workers.replicas", "make_gloo_group", False),
    "first step": Point("workers.stage", "StageWorker._train", False),
    "copy": Point("workers.block_files", "Saver.save", False, 2),
    "commit.before": Point("launch.checkpoints.committer", "commit", False, 2),
    "commit.after": Point("launch.checkpoints.committer", "commit", True, 2),
    "prune": Point("launch.checkpoints.committer", "prune", False, 4),
    "pass.before": Point("workers.stage", "StageWorker._finish_evaluation", False),
    "pass.after": Point("workers.stage", "StageWorker._finish_evaluation", True),
    "end.before": Point("workers.stage", "StageWorker._end", False),
    "end.after": Point("workers.stage", "StageWorker._end", True),
    "save.before": Point("workers.block_files", "Saver.save_now", False),
    "save.after": Point("workers.block_files", "Saver.save_now", True),
    "summary.before": Point("launch.process.lead", "summarise", False),
    "summary.after": Point("launch.process.lead", "write_summary", True),
    "fifo leave.before": Point("launch.recovery.isolate", "GoingBack.leave", False),
    "fifo leave.after": Point("launch.recovery.isolate", "GoingBack.leave", True),
    "replay leave.before": Point("launch.recovery.isolate", "GoingOn.leave", False),
    "replay leave.after": Point("launch.recovery.isolate", "GoingOn.leave", True),
}


@dataclass(frozen=True)
class Strike:
    """To be called in each process of a run with its rank, before it does anything (`local_run.run_pipeline`, `enter`).

    Attributes:
        flag: File that says that it has struck.
    """

    point: str
    rank: int
    flag: Path

    def __call__(self, rank: int) -> None:
        if rank != self.rank:
            return
        point = POINTS[self.point]
        owner: Any = importlib.import_module(f"greedypipe.{point.module}")
        *classes, name = point.name.split(".")
        for each in classes:
            owner = getattr(owner, each)
        setattr(owner, name, self._struck(getattr(owner, name), point))

    def _struck(self, call: Callable[..., Any], point: Point) -> Callable[..., Any]:
        calls = 0

        def struck(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == point.call and not point.after:
                self._strike()
            result = call(*args, **kwargs)
            if calls == point.call and point.after:
                self._strike()
            return result

        return struck

    def _strike(self) -> None:
        if not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
