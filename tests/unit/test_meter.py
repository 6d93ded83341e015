import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from greedypipe.workers.telemetry.meter import Meter, MetricsFile, Stopwatch, Waits
from greedypipe.workers.telemetry.results import StepRecord


def meter(interval_steps: int) -> Meter:
    return Meter(SimpleNamespace(index=2, turn=2, device=torch.device("cpu")), interval_steps)  # type: ignore[arg-type]


def test_losses_are_averaged_over_the_interval_and_forgotten() -> None:
    losses = meter(2)
    assert not losses.record(torch.tensor(1.0), 0)
    assert losses.record(torch.tensor(2.0), 1)
    assert losses.read() == (1.5, 2, 1)
    assert losses.read() is None
    losses.record(torch.tensor(5.0), 2)
    assert losses.read() == (5.0, 2, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_named_with_its_block_and_the_first_batch(value: float) -> None:
    losses = meter(4)
    for batch_id, loss in ((7, 1.0), (8, value), (9, value)):
        losses.record(torch.tensor(loss), batch_id)
    losses.block.turn = 10
    with pytest.raises(FloatingPointError, match=rf"block 2: the local loss is {value} at batch_id 8 \(step 8\)"):
        losses.read()


def test_every_record_is_a_whole_line_at_once(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "new" / "stage0.jsonl")
    metrics.write(StepRecord(block=1, step=2, lr=1.5, loss=math.nan))
    (line,) = (tmp_path / "new" / "stage0.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["lr"] == 1.5 and record["loss"] is None and record["time_s"] >= 0
    metrics.close()


def test_a_stages_own_time_is_what_its_waits_leave() -> None:
    watch = Stopwatch()
    watch.count_training(4.0, Waits(input_s=0.5, output_s=0.5, feedback_s=1.0), samples=64)
    watch.count_training(1.0, Waits(), samples=36)
    assert (watch.busy_s, watch.step_time_s, watch.samples_per_s) == (3.0, 1.5, 20.0)
    assert watch.fraction(watch.wait_input_s) == 0.1
