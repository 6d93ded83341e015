"""What is left of a run on this host: exit codes, what was printed, and figures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from greedypipe.launch.reporting.summary import read_summary
from greedypipe.workers.jsonl import read_lines
from greedypipe.workers.telemetry.results import METRICS, StageReport, StepRecord, Summary


@dataclass(frozen=True)
class Outcome:
    """What is left of a run: exit codes by rank, what each rank printed, and the run's folder."""

    exit_codes: list[int | None]
    printed: list[str]
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary.json, as its users read it."""
        return json.loads((self.folder / "summary.json").read_text())

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
        """Samples per second of every stage's last block, all over the same time: while every stage trains.

        That begins when the last stage has its first `warmup_steps` behind it and ends with the first stage's last
        record, so no rate is one of working off what others have sent ahead. With FIFO the least one is the pipeline's.
        Steps between two records are taken to be evenly spaced, so `logging.interval_steps` should be small against
        the run; an evaluation pass in between counts as time, so benchmarks evaluate at the end alone.

        Raises:
            ValueError: No such time is left.
        """
        stages = sorted({report.stage for report in self.reports})
        steps, clocks = zip(*(self._progress(stage) for stage in stages), strict=True)
        begin_s = max(float(np.interp(warmup_steps, done, clock)) for done, clock in zip(steps, clocks, strict=True))
        end_s = min(clock[-1] for clock in clocks)
        if end_s <= begin_s:
            raise ValueError(f"no time in which all stages train is left after {warmup_steps} steps")
        return [
            float(np.diff(np.interp([begin_s, end_s], clock, done))[0]) * batch_size / (end_s - begin_s)
            for done, clock in zip(steps, clocks, strict=True)
        ]

    def _progress(self, stage: int) -> tuple[list[int], list[float]]:
        """Steps done by a stage's last block, and when; without the record of what is left over before an evaluation,
        which is written after it."""
        records = self.records(stage)
        mine = [one for one in records if one.block == records[-1].block]
        regular = [one for one in mine if one.step % mine[0].step == 0]
        return [one.step for one in regular], [one.unix_s for one in regular]
