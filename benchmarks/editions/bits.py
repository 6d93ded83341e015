"""Whether two trees train the same bits: the exported networks and heads of the same runs, compared."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.editions.trees import Tree

SHORT = ("data.name=digits", "training.epochs=2", "optimizer.lr=0.05", "faults.timeout_s=60")
SMALL = (*SHORT, "data.batch_size=128", "model.name=vgg8b", "model.width=0.1")
"""24 steps of four blocks, the last of an epoch with 30 samples."""
BARE = (
    *SHORT,
    "data.batch_size=120",
    "model.name=benchmarks.editions.bare_network:build",
    "head.name=linear",
    "training.epochs=1",
)
"""12 steps, the last one of 118 samples, without batch normalisation: each replica would take its own means for that."""
ROUNDING = {"rtol": 1e-3, "atol": 1e-5}
THREE = ("partition.blocks=3",)


@dataclass(frozen=True)
class Configuration:
    """One run.

    Attributes:
        processes: That train it, or begin it.
        settings: In addition to `SMALL`.
        resumed_by: Processes that train it once more, in another folder, from a checkpoint in the middle; 0: nobody.
    """

    name: str
    processes: int
    settings: tuple[str, ...] = ()
    resumed_by: int = 0


CONFIGURATIONS = (
    Configuration("FIFO, 1 process", 1),
    Configuration("FIFO, 2 processes", 2),
    Configuration("FIFO, 4 processes", 4),
    Configuration("bf16, dropout, 2 processes", 2, ("training.precision=bf16", "model.dropout=0.2")),
    Configuration("predsim, Adam, 2 processes", 2, ("method.name=predsim", "optimizer.name=adam", "optimizer.lr=0.001")),
    Configuration("reconstruction, 2 processes", 2, ("method.name=reconstruction",)),
    Configuration("replicas [1,2,1]", 4, (*THREE, "placement.replicas=[1,2,1]")),
    Configuration("resumed, 4 -> 2 processes", 4, ("checkpoint.interval_steps=5",), resumed_by=2),
)


@dataclass(frozen=True)
class Same:
    """What a comparison has found, file by file: `bytes`, `tensors` (under other names), `no heads` or `DIFFERS`."""

    name: str
    network: str
    heads: str
    sha256: dict[str, str]
    """Of each tree's exported network."""

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return "DIFFERS" not in (self.network, self.heads)


def compare(earlier: Tree, current: Tree, configuration: Configuration, folder: Path) -> Same:
    """Trains a configuration with both trees, exports what they have learned, and compares it. Blocks for seconds."""
    models = {}
    for tree in (earlier, current):
        (folder / tree.label).mkdir(parents=True)
        models[tree.label] = _trained(tree, configuration, folder / tree.label)
    hashes = {label: hashlib.sha256(model.read_bytes()).hexdigest() for label, model in models.items()}
    network = "bytes" if len(set(hashes.values())) == 1 else "DIFFERS"
    heads = [model.with_suffix(".heads.safetensors") for model in models.values()]
    found = same_tensors(*heads) if any(path.exists() for path in heads) else "no heads"
    return Same(configuration.name, network, found, hashes)


def _trained(tree: Tree, configuration: Configuration, place: Path) -> Path:
    run, model = place / "run", place / "model.safetensors"
    settings = (*SMALL, *configuration.settings)
    tree.train(configuration.processes, settings, run)
    if configuration.resumed_by:
        begun, run = run, place / "resumed"
        tree.train(configuration.resumed_by, settings, run, "--resume", str(_middle_checkpoint(begun)))
    tree.export(run, model)
    return model


def _middle_checkpoint(run: Path) -> Path:
    """The oldest one that the run has kept; none of them is its end."""
    manifests = {
        path.parent: json.loads(path.read_text(encoding="utf-8")) for path in run.glob("checkpoints/*/manifest.json")
    }
    return min(manifests, key=lambda path: manifests[path]["batch_id"])


def same_tensors(left: Path, right: Path) -> str:
    """Compares two files of tensors: `bytes`; `tensors` where each block has the same ones under other names; `DIFFERS`.

    What a name begins with, up to the first dot, is the block.
    """
    if not (left.exists() and right.exists()):
        return "DIFFERS"
    if left.read_bytes() == right.read_bytes():
        return "bytes"
    states = load_file(left), load_file(right)
    same_names = states[0].keys() == states[1].keys()
    return "tensors" if not same_names and _contents(states[0]) == _contents(states[1]) else "DIFFERS"


def _contents(state: dict[str, Tensor]) -> Counter[tuple[str, torch.dtype, torch.Size, bytes]]:
    """Every tensor with its block, its form and its bytes, without its own name."""
    return Counter(
        (name.partition(".")[0], value.dtype, value.shape, value.contiguous().view(torch.uint8).numpy().tobytes())
        for name, value in state.items()
    )


@dataclass(frozen=True)
class Rounding:
    """How far a run with replicas is from one without, both of the current tree."""

    largest_difference: float
    holds: bool


def replicas_within_rounding(tree: Tree, folder: Path) -> Rounding:
    """Trains a network without batch normalisation with and without replicas."""
    folder.mkdir()
    states = []
    for name, processes, settings in (("alone", 3, ()), ("shared", 4, ("placement.replicas=[1,2,1]",))):
        run, model = folder / name, folder / f"{name}.safetensors"
        tree.train(processes, (*BARE, *THREE, *settings), run)
        tree.export(run, model)
        states.append(load_file(model))
    alone, shared = states
    differences = [float((value - shared[name]).abs().max()) for name, value in alone.items()]
    return Rounding(max(differences), all(torch.allclose(shared[name], value, **ROUNDING) for name, value in alone.items()))


def held(found: Sequence[Same], rounding: Rounding) -> bool:
    """Whether every comparison holds."""
    return rounding.holds and all(one.holds for one in found)
