"""Reading a configuration: what is accepted, and that all that is wrong is said at once, in words that help."""

import re
from pathlib import Path

import pytest
import torch

from greedypipe.launch.config.errors import ConfigError, did_you_mean
from greedypipe.launch.config.help import describe_keys
from greedypipe.launch.config.keys import all_keys
from greedypipe.launch.config.loader import dump_config, load_config
from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning.checks import link_problems
from greedypipe.launch.planning.run_plan import make_plan
from greedypipe.pipeline.networks import MODEL_FAMILY

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
    for key, forms in all_keys().items():
        names = 1 if key.endswith(".name") else len(forms)
        assert len(re.findall(rf"^ +{re.escape(key)}=", text, re.MULTILINE)) == names, key
    assert "buffers.capacity=4" in text and "(relu | leaky_relu)" not in text


def test_help_puts_the_keys_of_a_variant_below_its_name() -> None:
    lines = describe_keys().splitlines()
    below = lines.index("  with model.name=mlp:")
    assert [line.split("=")[0] for line in lines[below + 1 : below + 3]] == ["    model.depth", "    model.hidden"]
    assert any(line.startswith("    adam, adamw: Adam") for line in lines)


def test_help_fits_a_terminal() -> None:
    assert [line for line in describe_keys().splitlines() if len(line) > 125] == []


def test_every_key_is_described_in_one_line() -> None:
    fields = {key: form.field for key, forms in all_keys().items() for form in forms}
    assert {key for key, field in fields.items() if not field.description or "\n" in field.description} == set()


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
    "number for a list": (
        ["method.name=reconstruction", "method.shift=-1"],
        "command line: method.shift: got -1, allowed: a list",
    ),
    "short list": (
        ["method.name=reconstruction", "method.shift=[5]"],
        "command line: method.shift: got [5], allowed: a longer list",
    ),
    "number for text": (["run.name=5"], "command line: run.name: got 5, allowed: a valid string; put it in quotes"),
    "more stages than blocks": (["partition.blocks=3"], "4 stages for 3 blocks: a stage hosts at least one block"),
    "replicas that do not go up": (
        ["placement.replicas=[1,2,2]"],
        "placement.replicas: got [1, 2, 2], which is 5 processes, but 4 were started",
    ),
    "no replica": (["placement.replicas=0"], "command line: placement.replicas: got 0, allowed: greater than or equal to 1"),
    "replicas that cannot share": (
        ["placement.replicas=[1,3]", "data.batch_size=64"],
        "command line: placement.replicas: got 3, allowed: divisors of data.batch_size=64",
    ),
    "a last batch too small to share": (
        ["placement.replicas=2", "data.batch_size=718"],
        "placement.replicas: got 2, but the last batch of an epoch has 2 samples",
    ),
    "replicas with replay": (
        ["placement.replicas=2", "buffers.policy=replay"],
        "command line: placement.replicas: got several replicas with",
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
    "too few boundaries": (
        ["partition.blocks=4", "partition.boundaries=[conv2]"],
        "partition.boundaries: 4 blocks have 3 boundaries, got 1",
    ),
    "missing folder": (
        ["data.name=image_folder", "data.root=/nonexistent"],
        "data.root=/nonexistent is no folder; image_folder needs /nonexistent/train/CLASS/*.jpg",
    ),
    "missing data set": (["data.name=cifar10", "data.download=false"], "cifar10 is not in data"),
    "replay key with queues": (
        ["buffers.max_reuse=3"],
        "command line: buffers.max_reuse: got 3, which has no effect with buffers.policy=fifo; it needs",
    ),
    "key of another network": (
        ["model.depth=9"],
        "command line: model.depth: unknown key with model.name=vgg8b (mlp only)",
    ),
    "default of another network's key": (
        ["model.name=mlp", "model.width=1.0"],
        "command line: model.width: unknown key with",
    ),
    "key of another method": (
        ["method.beta=0.5"],
        "command line: method.beta: unknown key with method.name=cross_entropy (predsim only)",
    ),
    "key of the old section loss": (["loss.beta=0.5"], "command line: loss.beta: unknown key; did you mean method.beta?"),
    "key of another head": (
        ["head.hidden=9"],
        "command line: head.hidden: unknown key with head.name=conv (mlp, infopro only)",
    ),
    "key of another optimizer": (
        ["optimizer.name=adam", "optimizer.momentum=0.5"],
        "command line: optimizer.momentum: unknown key with optimizer.name=adam (sgd only)",
    ),
    "key of another schedule": (
        ["optimizer.gamma=0.5", "optimizer.schedule=cosine"],
        "command line: optimizer.gamma: got 0.5, which has no effect with optimizer.schedule=cosine; it needs step or",
    ),
    "unknown key of a variant": (["model.widht=2"], "command line: model.widht: unknown key; did you mean model.width?"),
    "options of what takes none": (
        ["optimizer.options.x=1"],
        "command line: optimizer.options: unknown key with optimizer.name=sgd",
    ),
    "option of one's own": (
        ["optimizer.name=torch.optim:RMSprop", "optimizer.options.alpah=1"],
        "command line: optimizer.options.alpah: unknown option of torch.optim:RMSprop; did you mean alpha?",
    ),
    "own loss of overlap without a gradient for the layers": (
        ["method.name=overlap", "method.local.name=none"],
        "command line: method.local.name: unknown local loss 'none', nearest is 'supcon'; allowed: cross_entropy, pred, sim",
    ),
    "impossible value of the own loss": (
        ["method.name=overlap", "method.local.name=predsim", "method.local.beta=2"],
        "command line: method.local.beta: got 2, allowed: less than or equal to 1",
    ),
    "no such module": (
        ["model.name=no_such:f"],
        "command line: model.name: no_such:f: no module 'no_such' on the import path",
    ),
    "unknown network": (["model.name=vgg8c"], "command line: model.name: unknown network 'vgg8c', nearest is 'vgg8b'"),
    "schedule without milestones": (
        ["optimizer.schedule=multistep"],
        "the defaults: optimizer.milestones: got no epochs, but optimizer.schedule=multistep needs some, e.g. [150, 225]",
    ),
    "warm-up longer than the run": (["optimizer.warmup_steps=100000"], "optimizer.warmup_steps: got 100000, allowed: "),
    "one sample left over": (["data.batch_size=1437"], "data.batch_size=1437 leaves 1 of 1438 samples for the last batch"),
    "slow stage outside": (["debug.slow_stage=7", "debug.slow_factor=2"], "debug.slow_stage: got 7, allowed: below 4"),
    "a trace that starts, but is not": (
        ["logging.trace_start=5"],
        "command line: logging.trace_start: got 5, which has no effect without logging.trace_batches",
    ),
    "slowed, but which": (
        ["debug.slow_factor=2"],
        "command line: debug.slow_factor: got 2.0, which slows nothing without debug.slow_stage",
    ),
    "restarts of a run that is not isolated": (
        ["faults.max_restarts=5"],
        "command line: faults.max_restarts: got 5, which has no effect with faults.policy=restart",
    ),
    "nesterov without momentum": (
        ["optimizer.nesterov=true", "optimizer.momentum=0"],
        "command line: optimizer.nesterov: got true, which needs optimizer.momentum above 0",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_configuration_gets_one_clear_line(case: str) -> None:
    overrides, expected = WRONG[case]
    (line,) = complaints(*overrides)
    assert line.startswith(expected)


def test_a_key_of_another_data_set_is_refused() -> None:
    (line,) = complaints("data.samples=9")
    assert line == "command line: data.samples: unknown key with data.name=digits (synthetic only)"


def test_all_errors_are_said_at_once() -> None:
    """Bad values, unknown keys of a variant, keys that contradict another one of their section or of another."""
    lines = complaints(
        "foo=1",
        "link.transport=pigeon",
        "training.epochs=0",
        "model.depth=3",
        "model.width=0",
        "optimizer.gamma=0.5",
        "optimizer.nesterov=true",
        "optimizer.momentum=0",
        "buffers.policy=replay",
        "placement.replicas=3",
        "nonsense.a=1",
        "nonsense.b=1",
    )
    keys = [line.removeprefix("command line: ").split(":")[0] for line in lines]
    assert sorted(keys) == sorted(
        [
            "got 'foo=1', allowed",
            "link.transport",
            "training.epochs",
            "model.depth",
            "model.width",
            "optimizer.gamma",
            "optimizer.nesterov",
            "placement.replicas",
            "placement.replicas",
            "nonsense.a",
            "nonsense.b",
        ]
    )


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_another_network_may_be_chosen_for_a_file_and_the_files_keys_for_its_own_go(path: Path) -> None:
    assert load_config(str(path), []).model.width == 0.25
    assert load_config(str(path), ["model.name=resnet18"]).model == MODEL_FAMILY.choose({"name": "resnet18"})
    adam = load_config(str(path), ["optimizer.name=adam"]).optimizer
    assert (adam.name, adam.weight_decay, adam.schedule) == ("adam", 5e-4, "cosine")


def test_what_the_command_line_sets_for_another_variant_is_an_error_all_the_same() -> None:
    (line,) = complaints("model.name=resnet18", "model.width=0.25", path=ROOT / "configs" / "digits.yaml")
    assert line.startswith("command line: model.width: unknown key with model.name=resnet18 (basic_cnn, vgg8b")


def test_a_key_of_a_file_that_no_variant_has_stays_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("model: {name: vgg8b, widht: 2}\n")
    (line,) = complaints("model.name=mlp", path=path)
    assert line == f"{path}: model.widht: unknown key; did you mean model.width?"


def test_the_planner_accepts_the_time_that_it_measures_for_whatever_the_boundaries() -> None:
    assert load_config(None, ["partition.profile_s=1"]).partition.profile_s == 1


def test_options_may_be_set_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("optimizer: {name: 'torch.optim:RMSprop', options: {alpha: 0.5, eps: 1.0e-6}}\n")
    config = load_config(str(path), ["optimizer.options.alpha=0.9"])
    assert config.optimizer.options == {"alpha": 0.9, "eps": 1e-6}


@pytest.mark.parametrize("key", ["name", "beta", "reconstruction_weight"])
def test_keys_of_the_old_section_loss_are_answered_with_those_of_method(key: str) -> None:
    new = "weight" if key == "reconstruction_weight" else key
    assert did_you_mean(f"loss.{key}") == f"; did you mean method.{new}?"


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
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert complaints("placement.device=cuda") == [
        "placement.device: got 'cuda', but torch sees no GPU here; use cpu or auto"
    ]


@pytest.mark.parametrize(
    ("settings", "variables", "problem"),
    [
        (["link.transport=nccl"], {}, "link.transport: got nccl, allowed with stages on the CPU: auto, shm, gloo"),
        (["link.transport=ipc"], {}, "link.transport: got ipc, allowed with stages on the CPU: auto, shm, gloo"),
        (
            ["link.transport=shm"],
            {"GPU": "1"},
            "link.transport: got shm, allowed with stages on GPUs: auto, nccl, ipc, gloo",
        ),
        (
            ["link.transport=nccl"],
            {"GPU": "1", "CUDA_LAUNCH_BLOCKING": "1"},
            "link.transport: got nccl with CUDA_LAUNCH_BLOCKING",
        ),
        (
            ["link.transport=ipc"],
            {"GPU": "1", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
            "link.transport: got ipc with expandable_segments",
        ),
        (["link.transport=auto"], {"GPU": "1", "CUDA_LAUNCH_BLOCKING": "1"}, ""),
        (["link.transport=gloo"], {"GPU": "1"}, ""),
        (["link.transport=nccl"], {"GPU": "1"}, ""),
    ],
)
def test_a_transport_that_could_connect_no_stages_is_refused_before_anything_starts(
    settings: list[str], variables: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    device = torch.device("cuda" if "GPU" in variables else "cpu")
    problems = list(link_problems(load_config(None, settings), device))
    assert len(problems) == bool(problem) and all(line.startswith(problem) for line in problems)
