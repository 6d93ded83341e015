"""Stages on a GPU, linked by gloo through page-locked host slots."""

import math
from pathlib import Path

import pytest
import torch

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline.reference import train
from greedypipe.workers.data.source import BatchSource
from tests.multiprocess.harness import TINY, exported, run_pipeline

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

OVERRIDES = [*TINY, "partition.blocks=2", "placement.device=cuda"]


def test_two_processes_on_one_gpu_agree_with_the_sequential_reference_on_it(tmp_path: Path) -> None:
    outcome = run_pipeline(OVERRIDES, 2, tmp_path)
    assert outcome.exit_codes == [0, 0], outcome.printed
    plan = make_plan(load_config(None, OVERRIDES), 1)
    device = torch.device("cuda", 0)
    blocks = [plan.blueprint.build_block(index, device) for index in range(2)]
    source = BatchSource(plan.config.data, plan.config.training.seed)
    batches = (source.training_batch(batch_id) for batch_id in range(plan.blueprint.total_steps))
    losses = train(blocks, ((batch.images.to(device), batch.labels.to(device)) for batch in batches))
    assert all(math.isfinite(loss) for row in losses for loss in row)
    expected = {name: value.cpu() for block in blocks for name, value in block.layer_state().items()}
    # cuDNN's convolutions add in no fixed order, so the bits may differ.
    for name, value in exported(outcome).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-3)
