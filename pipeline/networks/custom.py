"""A user's own network, named in the configuration as ``package.module:function``."""

from collections.abc import Sequence

from torch import nn

from greedypipe.pipeline.networks.interface import ModelConfig
from greedypipe.pipeline.networks.layer import Layer, Network
from greedypipe.pipeline.plugins import Own


class OwnNetwork(Own, ModelConfig):
    """Your own network: a function of input_shape, num_classes and your options that returns an nn.Sequential.

    It is called as ``function(input_shape=(C, H, W), num_classes=n, **options)``, with (C, T) for signals and (F,) for
    vectors. Each child of the nn.Sequential is a layer under its own name, the last one the classifier. Blocks learn
    separately, possibly in different processes, so children may not share parameters.
    """

    section = "model"
    keywords = ("input_shape", "num_classes")

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> Network:
        sequential = self.call(input_shape=input_shape, num_classes=num_classes)
        if not isinstance(sequential, nn.Sequential):
            raise ValueError(f"{self.name} must return an nn.Sequential, got {type(sequential).__name__}")
        if len(sequential) < 2:
            raise ValueError(f"{self.name} must return 2 children or more (layers, classifier), got {len(sequential)}")
        # named_children() would skip the second use of a module, such as one ReLU shared by all.
        modules = sequential.named_modules(remove_duplicate=False)
        units = [Layer(child, child, module) for child, module in modules if child and "." not in child]
        _refuse_shared_parameters(self.name, units)
        return Network(tuple(units[:-1]), units[-1])


def _refuse_shared_parameters(name: str, units: Sequence[Layer]) -> None:
    owners: dict[nn.Parameter, str] = {}
    for unit in units:
        for parameter in unit.module.parameters():
            owner = owners.setdefault(parameter, unit.name)
            if owner != unit.name:
                raise ValueError(f"{name}: children {owner!r} and {unit.name!r} share a parameter; layers learn separately")
