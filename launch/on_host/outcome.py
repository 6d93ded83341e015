"""What is left of a run on this host: exit codes, what was printed, and figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from greedypipe.workers.jsonl import read_lines
from greedypipe.workers.telemetry.results import METRICS, StageReport, StepRecord, Summary
from greedypipe.workers.telemetry.summary_file import read_summary


@dataclass(frozen=True)
class Outcome:
    """What is left of a run: exit codes by rank, what each rank printed, and the run's folder."""

    exit_codes: list[int | None]
    printed: list[str]
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary.json, as its users read it."""
        summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        return summary

    @property
    def reports(self) -> list[StageReport]:
        """What the processes of a run that has not failed report of themselves, in the order of ranks.

        Raises:
            ValueError: The run has failed, or left no summary.
        """
        summary = read_summary(self.folder)
        if not isinstance(summary, Summary):
            raise ValueError(f"{self.folder}: got no summary of a run that has ended well")
        return summary.stages

    def records(self, stage: int) -> list[StepRecord]:
        """The lines of metrics/stageK.jsonl about training steps, in order; of several replicas, the first one's."""
        path = self.folder / "metrics" / f"stage{stage}.jsonl"
        records = read_lines(path if path.exists() else path.with_stem(f"stage{stage}.0"), METRICS)
        return [record for record in records if isinstance(record, StepRecord)]

    def steady_samples_per_s(self, batch_size: int, warmup_steps: int) -> list[float]:
        """Samples per second of every stage's last block, while every stage trains: see `steady_steps_per_s`.

        Raises:
            ValueError: No such time is left.
        """
        stages = sorted({report.stage for report in self.reports})
        rates = steady_steps_per_s([self._progress(stage) for stage in stages], warmup_steps)
        return [rate * batch_size for rate in rates]

    def _progress(self, stage: int) -> "Progress":
        records = self.records(stage)
        mine = [one for one in records if one.block == records[-1].block]
        return Progress([one.step for one in mine], [one.unix_s for one in mine])


class NeverAtOnce(ValueError):
    """There is no time in which all stages train."""


@dataclass(frozen=True)
class Progress:
    """Steps that a stage's last block had done by the time of each record, and Unix times."""

    steps: Sequence[int]
    clocks: Sequence[float]

    @property
    def regular(self) -> "Progress":
        """Without the records of the steps left over before an evaluation, which are written after it."""
        kept = [(step, clock) for step, clock in zip(self.steps, self.clocks, strict=True) if step % self.steps[0] == 0]
        return Progress(*zip(*kept, strict=True))


def steady_steps_per_s(stages: Sequence[Progress], warmup_steps: int) -> list[float]:
    """Steps per second of every stage, all over the same time: while every stage trains.

    The time begins when the last stage has done `warmup_steps` and ends with the first stage's last record, so no rate
    counts work on what others have sent ahead. With FIFO the least one is the pipeline's. Steps between two
    records are taken to be evenly spaced, so `logging.interval_steps` should be small against the run; an evaluation pass
    in between counts as time, so benchmarks evaluate at the end alone.

    Raises:
        NeverAtOnce: No such time is left.
    """
    regular = [one.regular for one in stages]
    begin_s = max(float(np.interp(warmup_steps, one.steps, one.clocks)) for one in regular)
    end_s = min(one.clocks[-1] for one in regular)
    if end_s <= begin_s:
        raise NeverAtOnce(f"no time in which all stages train is left after {warmup_steps} steps")
    return [float(np.diff(np.interp([begin_s, end_s], one.clocks, one.steps))[0]) / (end_s - begin_s) for one in regular]
