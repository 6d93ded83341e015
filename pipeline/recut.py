"""Assembles the state of a block from saved blocks that may have been cut elsewhere: everything follows its name."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from greedypipe.pipeline.block import Block

State = Mapping[str, Any]


def transferred_state(block: Block, saved: Sequence[State]) -> tuple[dict[str, Any], bool]:
    """The state for `block.load_state_dict`, assembled from the `Block.state_dict`s of a whole network.

    Layers and their optimizer state are found by the ordinary network's names. A head belongs to the layer that it follows;
    if no saved head followed this block's last layer, or it had another shape, the block keeps its fresh head. Blocks that
    are merged into one may have done different numbers of steps (replay): the smallest counts, so that every layer gets
    its budget. With the same partition the result is the saved state, bit for bit.

    Returns:
        The state, and whether the head is fresh.

    Raises:
        ValueError: A layer is not among the saved ones, or has another shape there.
    """
    own = block.state_dict()
    layers = {name: value for state in saved for name, value in state["layers"].items()}
    _check(own["layers"], layers)
    head = next((state for state in saved if _has_head_of(own, state)), None)
    sources = [state for state in saved if own["layers"].keys() & state["layers"].keys()]
    slowest = min(sources, key=lambda state: state["turn"])
    return {
        "turn": slowest["turn"],
        "step": slowest["step"],
        "learned": slowest["learned"],
        "layers": {name: layers[name] for name in own["layers"]},
        "method": head["method"] if head else own["method"],
        "optimizer": _optimizer(own, slowest, sources, head),
        "schedule": slowest["schedule"],
        "others": head["others"] if head else {},
        **_accumulated(own, saved),
        "codec": next((state.get("codec", {}) for state in saved if state["last_layer"] == own["last_layer"]), {}),
        **_in_flight(own, saved),
    }, head is None


def _in_flight(own: State, saved: Sequence[State]) -> dict[str, Any]:
    """Batches that feedback is due on, and feedback on its way, are those of the same block with the same layers, in front
    of and behind the same neighbours; with another cut they are dropped, and blocks begin as at the start of a run."""
    same = _same(own, saved)
    if same is None or len(same["line"]) != len(own["line"]):
        return {"kept": [], "line": own["line"]}
    return {"kept": same["kept"], "line": same["line"]}


def _accumulated(own: State, saved: Sequence[State]) -> dict[str, Any]:
    """Gradients on the way to a step are those of the same block with the same head; with another cut they are dropped."""
    same = _same(own, saved)
    return {"accumulated": same["accumulated"]} if same and _has_head_of(own, same) and "accumulated" in same else {}


def _same(own: State, saved: Sequence[State]) -> State | None:
    """The saved block of the same place with the same layers."""
    index = own["index"]
    same = saved[index] if index < len(saved) else None
    return same if same and list(same["layers"]) == list(own["layers"]) else None


def _check(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    for name, value in own.items():
        if name not in saved:
            raise ValueError(f"the checkpoint holds no {name}: it belongs to another network")
        if saved[name].shape != value.shape:
            shapes = f"{tuple(saved[name].shape)} in the checkpoint, {tuple(value.shape)} in this network"
            raise ValueError(f"{name} has another shape: {shapes}")


def _has_head_of(own: State, saved: State) -> bool:
    shapes = [{name: value.shape for name, value in state["method"].items()} for state in (own, saved)]
    return own["last_layer"] == saved["last_layer"] and shapes[0] == shapes[1]


def _optimizer(own: State, slowest: State, sources: Sequence[State], head: State | None) -> dict[str, Any]:
    """Settings come from the source block with the fewest steps; the state of every parameter follows its name."""
    kept: dict[str, Mapping[str, Any]] = {}
    for state in sources:
        names, numbered = state["parameters"], state["optimizer"]["state"]
        kept |= {names[number]: entry for number, entry in numbered.items() if not names[number].startswith("method.")}
    if head:
        names, numbered = head["parameters"], head["optimizer"]["state"]
        kept |= {names[number]: entry for number, entry in numbered.items() if names[number].startswith("method.")}
    groups = [
        settings | {"params": group["params"]}
        for settings, group in zip(slowest["optimizer"]["param_groups"], own["optimizer"]["param_groups"], strict=True)
    ]
    shapes = _parameter_shapes(own)
    # A fused optimizer needs a state for all of its parameters or for none.
    template = next(iter(kept.values()), {})
    fresh = {name: _zeros(template, shapes[name]) for name in own["parameters"] if name not in kept}
    states = {number: kept.get(name) or fresh[name] for number, name in enumerate(own["parameters"])} if template else {}
    return {"state": states, "param_groups": groups}


def _parameter_shapes(own: State) -> dict[str, torch.Size]:
    shapes = {name: value.shape for name, value in own["layers"].items()}
    return shapes | {f"method.{name}": value.shape for name, value in own["method"].items()}


def _zeros(template: Mapping[str, Any], shape: torch.Size) -> dict[str, Any]:
    """The state of a parameter that has not been trained: no momentum, no steps."""
    return {
        key: torch.zeros(shape if value.dim() else (), dtype=value.dtype) if isinstance(value, Tensor) else value
        for key, value in template.items()
    }
