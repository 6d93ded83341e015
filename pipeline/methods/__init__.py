"""Methods: how one block learns. One file each, and one line in the table."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import field_validator

from greedypipe.pipeline.method import Method, MethodConfig, TaskLoss
from greedypipe.pipeline.methods.cross_entropy import CrossEntropy
from greedypipe.pipeline.methods.none import Untrained
from greedypipe.pipeline.methods.predsim import PredSim
from greedypipe.pipeline.methods.reconstruction import Reconstruction
from greedypipe.pipeline.methods.reconstruction_only import ReconstructionOnly
from greedypipe.pipeline.plugins import Family, Own, resolve
from greedypipe.pipeline.site import Site

METHODS: Mapping[str, type[Method]] = {
    "cross_entropy": CrossEntropy,
    "predsim": PredSim,
    "reconstruction": Reconstruction,
    "reconstruction_only": ReconstructionOnly,
    "none": Untrained,
}
"""Every method by its name in the configuration: a class with a nested `Config`."""


class OwnMethod(MethodConfig, Own):
    """A method of your own: a class derived from greedypipe's LocalLoss or Method, called as object(site, **options)."""

    positional: ClassVar[int] = 1

    @field_validator("name")
    @classmethod
    def _names_a_method(cls, name: str) -> str:
        found = resolve(name)
        if not (isinstance(found, type) and issubclass(found, Method)):
            raise ValueError(f"got {name}, allowed: a class derived from LocalLoss or Method of greedypipe.pipeline.method")
        return name


METHOD_FAMILY: Family[MethodConfig] = Family(
    "method", {name: method.Config for name, method in METHODS.items()}, default="cross_entropy", own=OwnMethod
)


def method_class(config: MethodConfig) -> type[Method]:
    """The class that a section `method` names, for all blocks but the last, whose method is `TaskLoss`."""
    if isinstance(config, OwnMethod):
        method: type[Method] = resolve(config.name)
        return method
    return METHODS[config.name]


def build_method(config: MethodConfig, site: Site) -> Method:
    """Builds the method of one block, drawing the initial weights of its parts from torch's global generator."""
    if site.is_last:
        return TaskLoss(site)
    if isinstance(config, OwnMethod):
        method: Method = config.call(site)
        return method
    return method_class(config)(site, **config.model_dump(exclude={"name"}))
