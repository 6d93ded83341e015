"""A user's own network, named in the configuration as ``package.module:function``."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from greedypipe.pipeline.networks.layer import Layer, Network


def build_custom(name: str, input_shape: tuple[int, int, int], num_classes: int) -> Network:
    """Builds the network that a user's function returns.

    The function is called as ``function(input_shape=(C, H, W), num_classes=n)`` and returns an nn.Sequential.
    Each child is a layer under its own name, the last one the classifier. Blocks learn apart, possibly in
    different processes, so no parameter may be shared between children.

    Args:
        name: ``package.module:function``; the module must be on the import path.
        input_shape: [C, H, W] of an image.
        num_classes: Number of logits.

    Raises:
        ValueError: There is no such module or function, or what it returns is not as above. Errors from
            inside the module or the function are passed on as they are.
    """
    sequential = _import_function(name)(input_shape=input_shape, num_classes=num_classes)
    if not isinstance(sequential, nn.Sequential):
        raise ValueError(f"{name} must return an nn.Sequential, got {type(sequential).__name__}")
    if len(sequential) < 2:
        raise ValueError(f"{name} must return 2 children or more (layers, classifier), got {len(sequential)}")
    # named_children() would skip the second use of a module, such as one ReLU shared by all.
    modules = sequential.named_modules(remove_duplicate=False)
    units = [Layer(child, child, module) for child, module in modules if child and "." not in child]
    _refuse_shared_parameters(name, units)
    return Network(tuple(units[:-1]), units[-1])


def _import_function(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise ValueError(f"a custom network is given as 'package.module:function', got {name!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module was found, but something that it imports was not
        raise ValueError(f"{name}: no module {error.name!r} on the import path") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"{name}: module {module_name!r} has no function {function_name!r}")
    return function


def _refuse_shared_parameters(name: str, units: Sequence[Layer]) -> None:
    owners: dict[nn.Parameter, str] = {}
    for unit in units:
        for parameter in unit.module.parameters():
            owner = owners.setdefault(parameter, unit.name)
            if owner != unit.name:
                raise ValueError(f"{name}: children {owner!r} and {unit.name!r} share a parameter, but layers learn apart")
