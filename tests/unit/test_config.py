"""Reading a configuration: what is accepted, and that all that is wrong is said at once, in words that help."""

from pathlib import Path

import pytest

from greedypipe.launch.config.help import describe_keys
from greedypipe.launch.config.loader import ConfigError, dump_config, load_config
from greedypipe.launch.config.sections import RunConfig, all_keys
from greedypipe.launch.planning.run_plan import make_plan

ROOT = Path(__file__).resolve().parents[2]


def complaints(*overrides: str, path: Path | None = None, processes: int = 4) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        make_plan(load_config(str(path) if path else None, overrides), processes)
    return str(caught.value).splitlines()


def test_no_file_and_no_override_give_the_defaults() -> None:
    assert load_config(None, []) == RunConfig()


def test_an_override_goes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("optimizer: {lr: 1e-3}\nbuffers: {capacity: 7}\n")
    config = load_config(str(path), ["buffers.capacity=9"])
    assert (config.optimizer.lr, config.buffers.capacity) == (0.001, 9)


def test_a_dumped_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(None, ["optimizer.schedule=multistep", "optimizer.milestones=[3,5]", "partition.blocks=2"])
    path = tmp_path / "dumped.yaml"
    path.write_text(dump_config(config))
    assert load_config(str(path), []) == config


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_possible(path: Path) -> None:
    config = load_config(str(path), [])
    make_plan(config.model_copy(update={"data": load_config(None, ["data.name=synthetic"]).data}), config.partition.blocks)


def test_help_lists_every_key_with_its_default() -> None:
    text = describe_keys()
    assert all(f"  {key}=" in text for key in all_keys())
    assert "buffers.capacity=4" in text
    assert "sgd | adam | adamw" in text


def test_every_key_is_described_in_one_line() -> None:
    assert {key: field.description for key, field in all_keys().items() if not field.description} == {}


WRONG = {
    "unknown key": (["buffers.capcity=3"], "command line: buffers.capcity: unknown key; did you mean buffers.capacity?"),
    "unknown section": (["buffer.capacity=3"], "command line: buffer.capacity: unknown key; did you mean buffers.capacity?"),
    "no section": (
        ["capacity=3"],
        "command line: got 'capacity=3', allowed: section.key=value; did you mean buffers.capacity?",
    ),
    "wrong type": (["training.epochs=many"], "command line: training.epochs: got 'many', allowed: a valid integer"),
    "wrong choice": (["buffers.policy=lifo"], "command line: buffers.policy: got 'lifo', allowed: 'fifo' or 'replay'"),
    "capacity 0": (["buffers.capacity=0"], "command line: buffers.capacity: got 0, allowed: greater than or equal to 1"),
    "number for text": (["run.name=5"], "command line: run.name: got 5, allowed: a valid string; put it in quotes"),
    "more stages than blocks": (["partition.blocks=3"], "4 stages for 3 blocks: a stage hosts at least one block"),
    "replicas that do not go up": (
        ["placement.replicas=[1,2,2]"],
        "placement.replicas: got [1, 2, 2], which is 5 processes, but 4 were started",
    ),
    "no replica": (["placement.replicas=0"], "command line: placement.replicas: got 0, allowed: greater than or equal to 1"),
    "replicas that cannot share": (
        ["placement.replicas=[1,3]", "data.batch_size=64"],
        "placement.replicas: got 3, allowed: a divisor of data.batch_size=64",
    ),
    "a last batch too small to share": (
        ["placement.replicas=2", "data.batch_size=718"],
        "placement.replicas: got 2, but the last batch of an epoch has 2 samples",
    ),
    "replicas with replay": (
        ["placement.replicas=2", "buffers.policy=replay"],
        "placement.replicas: got several replicas with",
    ),
    "more blocks than layers": (["partition.blocks=40"], "partition.blocks: got 40, but the network has 7 layers"),
    "boundary outside the network": (
        ["partition.boundaries=[conv2,conv99,conv5]"],
        "partition.boundaries: 'conv99' cannot begin a block; the network's layers after the first are conv2, pool1",
    ),
    "boundaries out of order": (
        ["partition.boundaries=[conv5,conv4,conv6]"],
        "partition.boundaries must be in the network's order, got conv5, conv4, conv6",
    ),
    "too few boundaries": (["partition.boundaries=[conv2]"], "partition.boundaries: 4 blocks have 3 boundaries, got 1"),
    "missing folder": (
        ["data.name=image_folder", "data.root=/nonexistent"],
        "data.root=/nonexistent is no folder; image_folder needs /nonexistent/train/CLASS/*.jpg",
    ),
    "missing data set": (["data.name=cifar10", "data.download=false"], "cifar10 is not in data"),
    "replay key with queues": (
        ["buffers.max_reuse=3"],
        "command line: buffers.max_reuse=3 has no effect with buffers.policy=fifo; it needs buffers.policy=replay",
    ),
    "key of another loss": (["method.beta=0.5"], "command line: method.beta=0.5 has no effect with loss.name=cross_entropy"),
    "key of another network": (["model.depth=9"], "command line: model.depth=9 has no effect with model.name=vgg8b"),
    "key of another data set": (["data.samples=9"], "command line: data.samples=9 has no effect with data.name=digits"),
    "unknown network": (["model.name=vgg8c"], "command line: model.name: unknown network 'vgg8c', nearest is 'vgg8b'"),
    "schedule without milestones": (
        ["optimizer.schedule=multistep"],
        "optimizer.schedule=multistep needs optimizer.milestones",
    ),
    "warm-up longer than the run": (["optimizer.warmup_steps=100000"], "optimizer.warmup_steps: got 100000, allowed: "),
    "one sample left over": (["data.batch_size=1437"], "data.batch_size=1437 leaves 1 of 1438 samples for the last batch"),
    "slow stage outside": (["debug.slow_stage=7", "debug.slow_factor=2"], "debug.slow_stage: got 7, allowed: below 4"),
    "a trace that starts, but is not": (
        ["logging.trace_start=5"],
        "logging.trace_start has no effect without logging.trace_batches",
    ),
    "slowed, but which": (["debug.slow_factor=2"], "debug.slow_factor slows nothing without debug.slow_stage"),
    "nesterov without momentum": (
        ["optimizer.nesterov=true", "optimizer.momentum=0"],
        "optimizer.nesterov=true needs optimizer.momentum above 0",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_configuration_gets_one_clear_line(case: str) -> None:
    overrides, expected = WRONG[case]
    (line,) = complaints(*overrides)
    assert line.startswith(expected)


def test_all_errors_are_said_at_once() -> None:
    lines = complaints("buffers.policy=lifo", "training.epochs=0", "foo=1")
    assert len(lines) == 3


def test_duplicate_keys_in_a_file_are_refused_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("training:\n  epochs: 3\n  epochs: 4\n")
    (line,) = complaints(path=path)
    assert "duplicate key 'epochs'" in line and "line 3" in line


def test_a_missing_file_names_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "there.yaml").write_text("")
    (line,) = complaints(path=tmp_path / "nope.yaml")
    assert line == f"{tmp_path}/nope.yaml: no such file; there are {tmp_path}/there.yaml"


def test_a_file_that_is_a_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    assert complaints(path=path) == [f"{path}: got a list, allowed: sections of keys"]


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert complaints("placement.device=cuda") == [
        "placement.device: got 'cuda', but torch sees no GPU here; use cpu or auto"
    ]
