"""An evaluation whose last batch has fewer rows than a stage has replicas: one of them gets an empty part."""

from collections import Counter
from pathlib import Path

import pytest

from greedypipe.workers.jsonl import read_lines
from greedypipe.workers.telemetry.results import METRICS, PassRecord
from tests.multiprocess.harness import run_pipeline

RUN = ["data.name=synthetic", "data.samples=325", "data.shape=[1,8,8]", "data.classes=3", "data.batch_size=32"]
RUN += ["model.name=mlp", "model.depth=2", "model.hidden=16", "partition.blocks=2", "training.epochs=1"]
RUN += ["placement.replicas=[1,2]", "faults.timeout_s=40"]


@pytest.mark.parametrize("dtype", ["same", "int8"])
def test_every_held_out_sample_is_counted_once(dtype: str, tmp_path: Path) -> None:
    """Public report: 65 held out are two batches and one row, of which a range is taken where links have 8 bits."""
    outcome = run_pipeline([*RUN, f"link.dtype={dtype}"], 3, tmp_path)
    assert outcome.exit_codes == [0, 0, 0], outcome.printed
    seen: Counter[int] = Counter()
    for path in (outcome.folder / "metrics").glob("stage*.jsonl"):
        for record in read_lines(path, METRICS):
            if isinstance(record, PassRecord):
                seen.update(dict.fromkeys(record.accuracy, record.samples))
    assert seen == {0: 65, 1: 65}
