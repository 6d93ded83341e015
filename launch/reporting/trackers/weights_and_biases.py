"""Weights & Biases: one run of theirs for each run, also after a resumption, online where their server answers."""

import os
import sys
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

from greedypipe.launch.reporting.trackers.interface import Run
from greedypipe.launch.reporting.trackers.server import Server
from greedypipe.launch.reporting.trackers.values import THROUGHPUT, block_values, evaluation_values
from greedypipe.workers.atomic import write_atomically
from greedypipe.workers.errors import in_one_line
from greedypipe.workers.telemetry.records import StageRow
from greedypipe.workers.telemetry.results import Evaluation

ID = "wandb-id"
"""File in a run's folder with the id of its run at Weights & Biases, under which it goes on there."""
PROJECT = "greedypipe"
START_S, FINISH_S = 10.0, 30.0
"""How long their client may take to start, and to upload what is left at the end; the rest stays in the folder."""
SETTINGS = {
    "silent": True,
    "console": "off",
    "init_timeout": START_S,
    "finish_timeout": FINISH_S,
    "finish_timeout_raises": True,
}


class WandbTracker:
    """One run of Weights & Biases for the whole pipeline.

    Blocks stand at different steps, so each has a step metric of its own: blockB/step. Project, entity, group and tags
    come from the section logging or, where it is silent, from the variables that their client reads: WANDB_PROJECT,
    WANDB_ENTITY, WANDB_RUN_GROUP, WANDB_TAGS, WANDB_MODE and, for a server of one's own, WANDB_BASE_URL.

    Raises:
        ImportError: wandb is not installed.
    """

    def __init__(self, run: Run) -> None:
        try:
            import wandb
        except ImportError:
            raise ImportError("wandb is not installed; pip install 'greedypipe[wandb]'") from None
        self._num_blocks = run.num_blocks
        self._run = _start(wandb, run)
        self._run.define_metric("epoch")
        for keys in ("accuracy/*", "heldout_loss/*"):
            self._run.define_metric(keys, step_metric="epoch")
        for block in range(run.num_blocks):
            self._run.define_metric(f"block{block}/step")
            self._run.define_metric(f"block{block}/*", step_metric=f"block{block}/step")
        self._run.define_metric(THROUGHPUT, step_metric=f"block{run.num_blocks - 1}/step")

    def log(self, row: StageRow) -> None:
        for block, values in block_values(row, self._num_blocks):
            self._run.log(values | {f"block{block}/step": row.step})

    def log_evaluation(self, evaluation: Evaluation, best: float) -> None:
        self._run.log(evaluation_values(evaluation, best) | {"epoch": evaluation.epoch})

    def close(self) -> None:
        self._run.finish()


def _start(wandb: ModuleType, run: Run) -> Any:
    """Their run: online, or else offline, which is said once with the folder to upload."""
    os.environ.setdefault("WANDB_SILENT", "true")  # their setting of this name leaves a line about credentials
    asked = os.environ.get("WANDB_MODE", "online")
    if asked != "online":
        return _init(wandb, run, asked)
    why = Server.configured().problem()
    if not why:
        try:
            return _init(wandb, run, "online")
        except Exception as error:
            why = in_one_line(error)
            # Their service still holds the run that did not start.
            wandb.teardown()
    started = _init(wandb, run, "offline")
    parts = run.folder / "wandb" / "offline-run-*"
    print(f"greedypipe: Weights & Biases is offline: {why}; upload later: wandb sync {parts}", file=sys.stderr, flush=True)
    return started


def _init(wandb: ModuleType, run: Run, mode: str) -> Any:
    config = run.config
    return wandb.init(
        project=config.wandb_project or os.environ.get("WANDB_PROJECT") or PROJECT,
        entity=config.wandb_entity or None,
        group=config.wandb_group or None,
        tags=list(config.wandb_tags) or None,
        name=run.folder.name,
        id=_run_id(run.folder),
        resume="allow",
        dir=run.folder,
        config={section: dict(keys) for section, keys in run.settings.items()},
        mode=mode,
        settings=wandb.Settings(**_known(wandb)),
    )


def _known(wandb: ModuleType) -> dict[str, Any]:
    """The settings that the installed version has."""
    fields = getattr(wandb.Settings, "model_fields", SETTINGS)
    return {name: value for name, value in SETTINGS.items() if name in fields}


def _run_id(folder: Path) -> str:
    """The id under which the run in this folder has begun, or begins."""
    path = folder / ID
    if not path.exists():
        write_atomically(path, os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:12])
    return path.read_text(encoding="utf-8").strip()
