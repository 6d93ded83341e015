"""Every configuration key changes something: each is changed alone, and what it governs must differ."""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch

from greedypipe.buffers.replay import Policy, ReplayBuffer
from greedypipe.launch.checkpoints.run_folder import claim_folder
from greedypipe.launch.config.keys import OWN, all_keys
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.config.sections import RunConfig
from greedypipe.launch.planning import layer_costs
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.launch.process.build_stage import calendar_of
from greedypipe.launch.recovery.pulses import Pulses
from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.reference import train
from greedypipe.workers.around.scripted_faults import FaultyBlock, SlowedBlock, slowed_link, trouble
from greedypipe.workers.around.trace import make_tracing
from greedypipe.workers.data.source import BatchSource
from greedypipe.workers.ending import Stops
from greedypipe.workers.feed import Feed, Start
from greedypipe.workers.inbox import Delivery
from greedypipe.workers.links.interface import DeadEnd
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.placement import Seat
from greedypipe.workers.telemetry.meter import Meter
from greedypipe.workers.telemetry.status import StageStatus
from tests.records import make_row

TINY = ("data.batch_size=32", "training.epochs=1")
NETWORK = ("model.name=mlp", "model.hidden=16")
OWN_OBJECTS = "tests.unit.own_objects"


def config_of(overrides: Sequence[str]) -> RunConfig:
    """A tiny run of these overrides, of a tiny network where they choose none."""
    network = () if any(override.startswith("model.name=") for override in overrides) else NETWORK
    return load_config(None, [*TINY, *network, *overrides])


def plan_of(overrides: Sequence[str]) -> Plan:
    return make_plan(config_of(overrides), 1)


def trained(overrides: Sequence[str]) -> str:
    """Fingerprint of all parameters after three steps of the reference."""
    plan = plan_of(overrides)
    blocks = [plan.blueprint.build_block(index, torch.device("cpu")) for index in range(plan.blueprint.num_blocks)]
    source = BatchSource(plan.config.data, plan.config.training.seed)
    batches = [source.training_batch(batch_id) for batch_id in range(3)]
    losses = train(blocks, ((batch.images, batch.labels, batch.extras) for batch in batches))
    digest = hashlib.sha256(repr(losses).encode())
    for block in blocks:
        for value in (*block.layer_state().values(), *block.method.state_dict().values()):
            digest.update(value.contiguous().view(torch.uint8).numpy().tobytes() if value.dim() else repr(value).encode())
    return digest.hexdigest()


def trained_on_arrays(overrides: Sequence[str]) -> str:
    """As `trained`, on images of noise from a file."""
    images = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), dtype=np.uint8)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        np.savez(path, x_train=images, y_train=np.arange(96) % 2, x_test=images[:4], y_test=np.arange(4) % 2)
        return trained([*overrides, f"data.file={path}"])


def planned(overrides: Sequence[str]) -> Any:
    plan = make_plan(config_of(overrides), 2)
    layout = plan.layout_after(0).code
    return plan.blueprint.total_steps, plan.blueprint.partition.starts, layout, plan.data


def rounds_of_profile(overrides: Sequence[str]) -> int:
    """How often the planner measures every layer, by a clock that goes on 10 ms whenever it is asked."""
    ticks, calls = itertools.count(step=0.01), Mock(return_value=1.0)
    with patch.object(layer_costs._Trial, "seconds", calls), patch("time.perf_counter", lambda: next(ticks)):
        layer_costs.profile_layers(plan_of(overrides), torch.device("cpu"))
    return calls.call_count


def compiles(overrides: Sequence[str]) -> list[bool]:
    """Whether layers and method of a block have a compiled call; nothing is compiled before the first one."""
    block = plan_of(overrides).blueprint.build_block(0, torch.device("cpu"))
    return [module._compiled_call_impl is not None for module in (block.trunk.module, block.method)]


def learning_rates(overrides: Sequence[str]) -> list[float]:
    """Over three epochs of two steps each."""
    plan = plan_of(["data.name=synthetic", "data.samples=64", "data.shape=[1,4,4]", "training.epochs=3", *overrides])
    block = plan.blueprint.build_block(0, torch.device("cpu"))
    batch = BatchSource(plan.config.data, 0).training_batch(0)
    rates = []
    for _ in range(plan.blueprint.total_steps):
        rates.append(block.learning_rate)
        block.forward(batch.images, Batch(0, batch.labels))
        block.learn()
    return rates


def auxiliary_rates(overrides: Sequence[str]) -> list[float]:
    """Learning rates of what is trained apart from the layers, over three epochs of two steps each."""
    plan = plan_of(["data.name=synthetic", "data.samples=64", "data.shape=[1,4,4]", "training.epochs=3", *overrides])
    block = plan.blueprint.build_block(0, torch.device("cpu"))
    auxiliary, rates = block._optimizations._others["auxiliary"], []
    for _ in range(plan.blueprint.total_steps):
        rates.append(auxiliary.learning_rate)
        for parameter in auxiliary.parameters:
            parameter.grad = torch.zeros_like(parameter)
        auxiliary.advance()
    return rates


def reads(overrides: Sequence[str]) -> list[Any]:
    """What a buffer of the configuration gives after five inserts."""
    config = load_config(None, overrides).buffers
    buffer: ReplayBuffer[int] = ReplayBuffer(config.capacity, Policy.from_config(config, seed=0))
    for item in range(5):
        if config.policy == "replay" or item < config.capacity:
            buffer.insert(item, timeout_s=0)
    return [read.item if (read := buffer.try_read()) else None for _ in range(9)]


def feed(overrides: Sequence[str]) -> list[tuple[Kind, int]]:
    plan = plan_of(["data.name=synthetic", "data.samples=64", "data.shape=[1,4,4]", "training.epochs=4", *overrides])
    status = StageStatus(Seat(0, 0), [0], 0, "host")
    messages = Feed(
        BatchSource(plan.config.data, 0),
        calendar_of(plan, Start()),
        plan.blueprint.task,
        spread_evaluation=False,
        stops=Stops(),
        status=status,
    )
    return [(delivery.message.kind, delivery.message.batch_id) for delivery in messages]


def records(overrides: Sequence[str]) -> int:
    plan = plan_of(overrides)
    block = plan.blueprint.build_block(0, torch.device("cpu"))
    meter = Meter(block, plan.config.logging.interval_steps)
    return [meter.record(torch.zeros(()), step) for step in range(plan.config.logging.interval_steps)].index(True)


def traced(overrides: Sequence[str]) -> list[int]:
    """The training batches of ten that a stage records."""
    tracing = make_tracing(load_config(None, overrides).logging, stage=1, num_blocks=1)
    deliveries = [Delivery(Message(Kind.TRAIN, batch_id), 0, 1) for batch_id in range(10)]
    for _ in tracing.inbox(deliveries):  # type: ignore[arg-type]
        pass
    spans = tracing.spans()
    return spans.batch_id if spans else []


def troubled(overrides: Sequence[str]) -> list[Any]:
    config = load_config(None, overrides).debug
    blocks = [SimpleNamespace(index=index, step=0, layers=(), device=torch.device("cpu")) for index in range(2)]
    result: list[Any] = []
    for stage in range(2):
        for block in trouble(blocks, stage, config):  # type: ignore[arg-type]
            kind = type(block).__name__
            inner = (block._factor,) if isinstance(block, SlowedBlock) else ()
            inner = (block._fault, block._step) if isinstance(block, FaultyBlock) else inner
            result.append((stage, kind, inner))
    return result


def slowed(overrides: Sequence[str]) -> list[str]:
    config = load_config(None, overrides).debug
    return [type(slowed_link(DeadEnd(), stage, config)).__name__ for stage in range(2)]


def silent(overrides: Sequence[str]) -> int:
    """Seconds after which a row that never changes counts as silent."""
    seconds = iter(range(62))
    row = make_row()
    pulses = Pulses(1, load_config(None, overrides).faults.heartbeat_timeout_s, clock=lambda: float(next(seconds)))
    return next(second for second in range(60) if pulses.silent([row]))


VGG = ("model.name=vgg8b", "model.width=0.1")
AUGLOCAL = ["head.name=auglocal", "model.name=resnet20", "model.width=0.5"]
TRANSFORMER = ["head.name=private_layers", f"model.name={OWN_OBJECTS}:transformer"]
SIMCLR = ["method.name=simclr", "data.views=2", "data.augment=crop"]
INFOMAX = ["method.name=greedy_infomax", "model.name=resnet20", "model.width=0.25", "model.patches=2"]
UZAWA = ["method.name=trgl_uzawa", "method.every=1", "model.name=resnet20", "model.width=0.5"]
RESIDUAL = ["method.name=trgl", "model.name=resnet20", "model.width=0.5"]
CRITIC = ["method.name=local_critic"]
CRITIC_SGD = [*CRITIC, "auxiliary.name=sgd"]
QUANTISED = ["codec.name=vq", "codec.codes=8"]
SYNTHETIC = ["data.name=synthetic", "data.shape=[1,4,4]"]

# key: (changed value, what it governs, overrides under which it means something). A key that variants have in several
# forms stands once for each of them, with " of ..." behind it.
KEYS: dict[str, tuple[str, Callable[[Sequence[str]], Any], list[str]]] = {
    "data.name": ("synthetic", planned, []),
    "data.batch_size": ("16", planned, []),
    "data.augment": ("none", trained, []),
    "data.augment of arrays": ("crop", trained_on_arrays, ["data.name=arrays"]),
    "data.views": ("2", trained, []),
    "data.pretext": ("rotation", trained, []),
    "data.calibration_samples": ("100", planned, []),
    "data.drop_last": ("true", planned, []),
    "data.validation": ("0.1", planned, []),
    "data.mean": ("[0.5]", trained, []),
    "data.std": ("[0.5]", trained, []),
    "data.set_seed": ("1", planned, ["data.name=mnist_1d"]),
    "data.shape": ("[2,4,4]", planned, ["data.name=synthetic"]),
    "data.classes of glyphs": ("11", planned, ["data.name=glyphs", "data.classes=10"]),
    "data.classes": ("3", planned, SYNTHETIC),
    "data.samples": ("50", planned, SYNTHETIC),
    "model.name": ("basic_cnn", trained, []),
    "model.width": ("0.1", trained, ["model.name=vgg8b", "model.width=0.2"]),
    "model.depth": ("5", trained, []),
    "model.patches": ("4", trained, VGG),
    "model.hidden": ("8", trained, []),
    "model.dropout": ("0.5", trained, []),
    "model.padding": ("circular", trained, VGG),
    "model.activation": ("leaky_relu", trained, []),
    "model.backward": ("random", trained, ["method.name=features_replay"]),
    "model.options": ("{hidden: 9}", trained, [f"model.name={OWN_OBJECTS}:own_network"]),
    "partition.blocks": ("2", trained, []),
    "partition.boundaries": ("[fc4]", trained, ["partition.blocks=2"]),
    "partition.profile_s": ("0.5", rounds_of_profile, ["partition.boundaries=auto"]),
    "head.name": ("linear", trained, []),
    "head.hidden": ("8", trained, ["head.name=mlp"]),
    "head.depth": ("2", trained, ["head.name=conv"]),
    "head.width": ("2", trained, ["head.name=conv"]),
    "head.features": ("20", trained, ["head.name=linear", *VGG]),
    "head.hidden of infopro": ("8", trained, ["head.name=infopro"]),
    "head.depth of auglocal": ("1", trained, AUGLOCAL),
    "head.pyramid": ("0", trained, [*AUGLOCAL, "partition.blocks=3"]),
    "head.width of auglocal": ("2", trained, AUGLOCAL),
    "head.pooled": ("false", trained, AUGLOCAL),
    "head.channels": ("8", trained, ["head.name=critic", *VGG]),
    "head.depth of private_layers": ("0", trained, TRANSFORMER),
    "head.reads": ("mean", trained, TRANSFORMER),
    "head.by_block": ("[{name: linear}, {}, {}]", trained, []),
    "head.options": ("{bias: false}", trained, [f"head.name={OWN_OBJECTS}:own_head"]),
    "method.name": ("predsim", trained, []),
    "method.beta": ("0.5", trained, ["method.name=predsim"]),
    "method.weight": ("0.9", trained, ["method.name=reconstruction"]),
    "method.features": ("20", trained, ["method.name=pred", *VGG]),
    "method.features of supcon": ("8", trained, ["method.name=supcon"]),
    "method.temperature": ("0.5", trained, ["method.name=supcon"]),
    "method.temperature of simclr": ("0.1", trained, SIMCLR),
    "method.features of simclr": ("8", trained, SIMCLR),
    "method.predictions": ("1", trained, INFOMAX),
    "method.negatives": ("4", trained, INFOMAX),
    "method.weight of rotation": ("0.5", trained, ["method.name=rotation", "data.pretext=rotation"]),
    "method.temperature of infopro_contrast": ("0.5", trained, ["method.name=infopro_contrast"]),
    "method.weight of cross_entropy_supcon": ("0.9", trained, ["method.name=cross_entropy_supcon"]),
    "method.weight of trgl": ("0.9", trained, RESIDUAL),
    "method.rate of trgl_uzawa": ("0.5", trained, UZAWA),
    "method.every of trgl_uzawa": ("2", trained, UZAWA),
    "method.early": ("1", trained, RESIDUAL),
    "method.groups": ("[5,10,10]", trained, ["method.name=coarse_labels"]),
    "method.ixx": ("[2,1]", trained, ["method.name=infopro_softmax"]),
    "method.ixy": ("[2,1]", trained, ["method.name=infopro_softmax"]),
    "method.shift": ("[1,3]", trained, ["method.name=reconstruction"]),
    "method.tap": ("pre_pool", trained, ["method.name=reconstruction", *VGG]),
    "method.last_block": ("false", trained, ["method.name=none"]),
    "method.options": ("{scale: 0.5}", trained, [f"method.name={OWN_OBJECTS}:OwnMethod"]),
    "method.weight of last_gradient": ("0.9", trained, ["method.name=last_gradient"]),
    "method.weight of overlap": ("0.9", trained, ["method.name=overlap"]),
    "method.local": ("{name: predsim}", trained, ["method.name=overlap"]),
    "method.first_block": ("false", trained, ["method.name=overlap"]),
    "method.weight of late_chain": ("0.9", trained, ["method.name=late_chain"]),
    "method.weights": ("stashed", trained, ["method.name=late_chain"]),
    "method.rows": ("0.5", trained, ["method.name=late_chain"]),
    "method.lost": ("0.5", trained, ["method.name=late_chain"]),
    "method.shrink": ("0.9", trained, ["method.name=fdg"]),
    "method.kernel of dni": ("3", trained, ["method.name=dni", *VGG]),
    "method.kernel of cdni": ("3", trained, ["method.name=cdni", *VGG]),
    "method.noise": ("0.5", trained, ["method.name=dtp"]),
    "method.rate": ("0.5", trained, ["method.name=dtp"]),
    "method.weight of overlap_weights": ("0.9", trained, ["method.name=overlap_weights"]),
    "method.every of overlap_weights": ("2", trained, ["method.name=overlap_weights"]),
    "method.momentum of man": ("0.5", trained, ["method.name=man"]),
    "method.every of man": ("2", trained, ["method.name=man", "method.momentum=0.5"]),
    "method.momentum of man_pp": ("0.5", trained, ["method.name=man_pp"]),
    "method.every of man_pp": ("2", trained, ["method.name=man_pp", "method.momentum=0.5"]),
    "feedback.delay": ("0", trained, ["method.name=overlap"]),
    "auxiliary.name": ("adam", trained, CRITIC),
    "auxiliary.lr": ("0.01", trained, CRITIC_SGD),
    "auxiliary.momentum": ("0.5", trained, CRITIC_SGD),
    "auxiliary.nesterov": ("true", trained, CRITIC_SGD),
    "auxiliary.weight_decay": ("0.1", trained, CRITIC_SGD),
    "auxiliary.weight_decay of adam": ("0.1", trained, [*CRITIC, "auxiliary.name=adam"]),
    "auxiliary.options": ("{alpha: 0.5}", trained, [*CRITIC, "auxiliary.name=torch.optim:RMSprop"]),
    "auxiliary.clip_norm": ("0.01", trained, CRITIC_SGD),
    "auxiliary.schedule": ("cosine", auxiliary_rates, CRITIC_SGD),
    "auxiliary.step_epochs": ("1", auxiliary_rates, [*CRITIC_SGD, "auxiliary.schedule=step"]),
    "auxiliary.milestones": (
        "[1]",
        auxiliary_rates,
        [*CRITIC_SGD, "auxiliary.schedule=multistep", "auxiliary.milestones=[2]"],
    ),
    "auxiliary.gamma": ("0.5", auxiliary_rates, [*CRITIC_SGD, "auxiliary.schedule=step", "auxiliary.step_epochs=1"]),
    "auxiliary.accumulate_batches": ("2", trained, CRITIC_SGD),
    "auxiliary.peak": ("0.5", auxiliary_rates, [*CRITIC_SGD, "auxiliary.schedule=one_cycle"]),
    "auxiliary.warmup_epochs": ("1", auxiliary_rates, CRITIC_SGD),
    "auxiliary.warmup_steps": ("2", auxiliary_rates, CRITIC_SGD),
    "auxiliary.by_block": ("[{lr: 0.01}, {}, {}, {}]", trained, CRITIC_SGD),
    "optimizer.by_block": ("[{lr: 0.01}, {}, {}, {}]", trained, []),
    "optimizer.name": ("adamw", trained, []),
    "optimizer.accumulate_batches": ("2", trained, []),
    "optimizer.lr": ("0.01", trained, []),
    "optimizer.momentum": ("0.5", trained, []),
    "optimizer.nesterov": ("true", trained, []),
    "optimizer.weight_decay": ("0.1", trained, []),
    "optimizer.options": ("{alpha: 0.5}", trained, ["optimizer.name=torch.optim:RMSprop"]),
    "optimizer.weight_decay of nadam": ("0.1", trained, ["optimizer.name=nadam"]),
    "auxiliary.weight_decay of nadam": ("0.1", trained, [*CRITIC, "auxiliary.name=nadam"]),
    "optimizer.clip_norm": ("0.01", trained, []),
    "optimizer.schedule": ("cosine", learning_rates, []),
    "optimizer.step_epochs": ("1", learning_rates, ["optimizer.schedule=step"]),
    "optimizer.milestones": ("[1]", learning_rates, ["optimizer.schedule=multistep", "optimizer.milestones=[2]"]),
    "optimizer.gamma": ("0.5", learning_rates, ["optimizer.schedule=step", "optimizer.step_epochs=1"]),
    "optimizer.peak": ("0.5", learning_rates, ["optimizer.schedule=one_cycle"]),
    "optimizer.warmup_epochs": ("1", learning_rates, []),
    "optimizer.warmup_steps": ("2", learning_rates, []),
    "training.schedule": ("one_by_one", planned, []),
    "training.epochs": ("2", planned, []),
    "training.seed": ("1", trained, []),
    "training.label_smoothing": ("0.1", trained, []),
    "training.precision": ("bf16", trained, []),
    "training.compile": ("inductor", compiles, []),
    "training.channels_last": ("false", planned, ["model.name=basic_cnn"]),
    "buffers.policy": ("replay", reads, []),
    "buffers.capacity": ("2", reads, []),
    "buffers.selector": ("newest", reads, ["buffers.policy=replay"]),
    "buffers.max_reuse": ("1", reads, ["buffers.policy=replay"]),
    "codec.name": ("vq", trained, []),
    "codec.codes": ("16", trained, QUANTISED),
    "codec.groups": ("2", trained, QUANTISED),
    "codec.decay": ("0.5", trained, QUANTISED),
    "link.dtype": ("int8", planned, []),
    "evaluation.every_epochs": ("3", feed, []),
    "checkpoint.interval_steps": ("2", feed, []),
    "logging.interval_steps": ("3", records, []),
    "logging.trace_batches": ("4", traced, ["logging.trace_batches=2", "logging.trace_start=3"]),
    "logging.trace_start": ("5", traced, ["logging.trace_batches=2", "logging.trace_start=3"]),
    "debug.slow_stage": ("1", troubled, ["debug.slow_factor=2", "debug.slow_stage=0"]),
    "debug.slow_factor": ("3", troubled, ["debug.slow_stage=1"]),
    "debug.slow_link_s": ("0.5", slowed, ["debug.slow_stage=1"]),
    "debug.fault": ("raise", troubled, []),
    "debug.fault_stage": ("1", troubled, ["debug.fault=raise"]),
    "debug.fault_step": ("5", troubled, ["debug.fault=raise"]),
    "faults.heartbeat_timeout_s": ("3", silent, []),
}

CURRICULUM_KEYS = ("order", "difficulty", "pacing_start", "pacing_growth", "pacing_steps")
ELSEWHERE = {
    "data.root": "tests/unit/test_data_folder.py",
    "data.download": "tests/unit/test_data_sets.py",
    "data.image_size": "tests/unit/test_data_folder.py",
    "data.channels": "tests/unit/test_data_config.py",
    "data.test_share": "tests/unit/test_data_folder.py",
    "data.options": "tests/unit/test_data_own.py",
    **{f"data.{key}": "tests/unit/test_curriculum.py" for key in CURRICULUM_KEYS},
    "data.file": "tests/unit/test_data_arrays.py",
    "data.keys": "tests/unit/test_data_arrays.py",
    "data.class_samples": "tests/unit/test_data_arrays.py",
    "data.loader_workers": "tests/unit/test_data_prefetch.py",
    "data.memory_limit_mb": "tests/unit/test_data_loading.py",
    "run.folder": "test_the_folder_keys_say_where_a_run_writes",
    "run.name": "test_the_folder_keys_say_where_a_run_writes",
    "checkpoint.keep": "tests/multiprocess/test_resume.py",
    "link.slots": "tests/unit/test_connect.py",
    "link.transport": "tests/unit/test_connect.py",
    "training.graphs": "tests/unit/test_graphed.py",
    "training.deterministic": "tests/unit/test_devices.py",
    "placement.replicas": "tests/unit/test_placement.py",
    "placement.device": "tests/unit/test_config.py",
    "placement.threads": "tests/multiprocess/test_run_folder.py",
    "logging.console_interval_s": "tests/unit/test_monitor.py",
    "logging.wandb": "tests/unit/test_tracking.py",
    **{f"logging.wandb_{key}": "tests/unit/test_tracking.py" for key in ("project", "entity", "group", "tags")},
    "logging.tensorboard": "tests/unit/test_tracking.py",
    "ray.strategy": "tests/unit/test_ray_resources.py",
    "ray.cpus": "tests/unit/test_ray_resources.py",
    "ray.start_timeout_s": "tests/ray/test_ray_run.py",
    "ray.max_failures": "tests/ray/test_ray_run.py",
    "faults.policy": "tests/multiprocess/test_isolate.py",
    "faults.max_restarts": "tests/multiprocess/test_isolate.py",
    "faults.timeout_s": "tests/multiprocess/test_failures.py",
    "faults.hang_timeout_s": "tests/multiprocess/test_failures.py",
}


def test_every_key_is_covered_once() -> None:
    tested = {entry.partition(" ")[0] for entry in KEYS}
    assert not tested & set(ELSEWHERE)
    assert tested | set(ELSEWHERE) == set(all_keys())


def test_every_form_in_which_variants_have_a_key_is_covered() -> None:
    covered = set()
    for entry, (_, _, base) in KEYS.items():
        section, _, key = entry.partition(" ")[0].partition(".")
        name = getattr(getattr(config_of(base), section), "name", "")
        covered.add((section, key, OWN if ":" in name else name))
    forms = [form for key, forms in all_keys().items() if key not in ELSEWHERE for form in forms]
    forms = [form for form in forms if form.variants and form.name != "name"]
    assert [form for form in forms if not any((form.section, form.name, name) in covered for name in form.variants)] == []


@pytest.mark.parametrize("key", KEYS)
def test_changing_a_key_changes_what_it_governs(key: str) -> None:
    value, governed, base = KEYS[key]
    key = key.partition(" ")[0]
    assert governed([*base, f"{key}={value}"]) != governed(base)


@pytest.mark.parametrize("governed", [trained, planned, learning_rates, reads, feed, records, traced, troubled, silent])
def test_nothing_changes_without_a_change(governed: Callable[[Sequence[str]], Any]) -> None:
    assert governed([]) == governed([])


@pytest.mark.parametrize(("key", "place"), [item for item in ELSEWHERE.items() if item[1].startswith("tests/")])
def test_a_key_that_is_tested_elsewhere_is_named_there(key: str, place: str) -> None:
    text = (Path(__file__).resolve().parents[2] / place).read_text()
    assert key.partition(".")[2] in text


def test_the_folder_keys_say_where_a_run_writes(tmp_path: Path) -> None:
    def claimed(**keys: str) -> Path:
        return claim_folder(RunConfig(run={"folder": str(tmp_path / "runs"), **keys}))

    assert claimed() == tmp_path / "runs" / "vgg8b-digits-1"
    assert claimed() == tmp_path / "runs" / "vgg8b-digits-2"
    assert claimed(name="mine") == tmp_path / "runs" / "mine"
