"""The backbone: however the blocks are hosted, the parameters are those of the sequential reference, bit for bit."""

import json
from pathlib import Path

import pytest
import torch

from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline.feedback import Reach
from greedypipe.pipeline.methods import METHODS
from greedypipe.pipeline.reference import evaluate, train
from greedypipe.workers.data.source import BatchSource
from tests.multiprocess.harness import SHORT, TINY, Outcome, assert_equal_states, exported, run_pipeline
from tests.wanted import WANTED

HOSTINGS = [(blocks, processes) for blocks in (1, 2, 3, 4) for processes in (1, 2, 4) if processes <= blocks]

VARIANTS = {
    "bf16": ["training.precision=bf16"],
    "contiguous": ["training.channels_last=false"],
    "dropout": ["model.dropout=0.2"],
    "predsim and adam": ["method.name=predsim", "optimizer.name=adam", "optimizer.lr=1e-3"],
    "views and masks": ["method.name=reconstruction", "data.pretext=mask", "data.views=2", "data.augment=resized_crop"],
    "vector-quantised": ["codec.name=vq", "codec.codes=32", "codec.groups=2"],
    "clipped cosine": ["optimizer.clip_norm=0.5", "optimizer.schedule=cosine", "optimizer.warmup_steps=3"],
    "accumulated": ["optimizer.accumulate_batches=5", "method.name=features_replay"],
    "no room to spare": ["buffers.capacity=1", "link.slots=1"],
    "before the pool": ["method.name=reconstruction", "method.tap=pre_pool", "method.shift=[1,3]"],
    **{name: [f"method.name={name}", *WANTED.get(name, ())] for name in METHODS if name not in ("cross_entropy", "predsim")},
}
for name in ("dni", "cdni"):  # a synthesiser diverges at the rate of the layers
    VARIANTS[name] += ["auxiliary.name=adam", "auxiliary.lr=1e-3"]
LOCAL = {name for name, one in METHODS.items() if one.reach is Reach.NONE}


def reference(overrides: list[str]) -> tuple[dict[str, torch.Tensor], list[float], float]:
    """Parameters and accuracies of synchronous DGL in one loop."""
    plan = make_plan(load_config(None, overrides), 1)
    blocks = [plan.blueprint.build_block(index, torch.device("cpu")) for index in range(plan.blueprint.num_blocks)]
    source = BatchSource(plan.config.data, plan.config.training.seed)
    batches = (source.training_batch(batch_id) for batch_id in range(plan.blueprint.total_steps))
    train(blocks, ((batch.images, batch.labels, batch.extras) for batch in batches))
    accuracies, together = evaluate(blocks, ((batch.images, batch.labels) for batch in source.test_batches()))
    return {name: value for block in blocks for name, value in block.layer_state().items()}, accuracies, together


def assert_equals_reference(outcome: Outcome, overrides: list[str]) -> None:
    assert set(outcome.exit_codes) == {0}, outcome.printed
    state, accuracies, together = reference(overrides)
    assert_equal_states(exported(outcome), state)
    summary = json.loads((outcome.folder / "summary.json").read_text())
    assert summary["accuracy"] == {"blocks": accuracies, "final": accuracies[-1], "ensemble": together}


@pytest.mark.parametrize(("blocks", "processes"), HOSTINGS)
def test_any_hosting_equals_the_sequential_reference(blocks: int, processes: int, tmp_path: Path) -> None:
    overrides = [*TINY, f"partition.blocks={blocks}"]
    assert_equals_reference(run_pipeline(overrides, processes, tmp_path), overrides)


@pytest.mark.parametrize(
    "variant",
    # The conformance suite hosts local methods as processes do.
    [pytest.param(name, marks=pytest.mark.slow if name in LOCAL else ()) for name in VARIANTS],
)
def test_every_variant_equals_the_sequential_reference(variant: str, tmp_path: Path) -> None:
    overrides = [*TINY, "partition.blocks=3", *VARIANTS[variant]]
    assert_equals_reference(run_pipeline(overrides, 3, tmp_path), overrides)


def test_vectors_equal_the_sequential_reference(tmp_path: Path) -> None:
    overrides = [*SHORT, "partition.blocks=3", "model.name=mlp", "model.hidden=32"]
    assert_equals_reference(run_pipeline(overrides, 3, tmp_path), overrides)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_compiled_blocks_equal_the_compiled_reference_and_nearly_the_eager_one(tmp_path: Path) -> None:
    overrides = [
        *SHORT,
        "partition.blocks=2",
        "model.name=mlp",
        "model.depth=2",
        "model.hidden=16",
        "head.name=linear",
        "data.drop_last=true",
        "training.compile=inductor",
    ]
    outcome = run_pipeline(overrides, 2, tmp_path, timeout_s=200)
    assert_equals_reference(outcome, overrides)
    eager, _, _ = reference([*overrides, "training.compile=none"])
    compiled = exported(outcome)
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(compiled[name], value) for name, value in eager.items()), "nothing was compiled"


def test_two_epochs_with_evaluations_between_equal_the_sequential_reference(tmp_path: Path) -> None:
    overrides = [*TINY, "partition.blocks=2", "training.epochs=2"]
    outcome = run_pipeline(overrides, 2, tmp_path)
    assert_equals_reference(outcome, overrides)
    lines = (outcome.folder / "metrics" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_another_seed_gives_other_parameters(tmp_path: Path) -> None:
    overrides = [*TINY, "partition.blocks=2"]
    state = exported(run_pipeline(overrides, 2, tmp_path))
    other = exported(run_pipeline([*overrides, "training.seed=1"], 2, tmp_path))
    assert not torch.equal(state["conv1.conv.weight"], other["conv1.conv.weight"])
