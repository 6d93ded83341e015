"""Methods: how one block learns. One file each, and one line in the table."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from greedypipe.pipeline.method import Method, MethodConfig, TaskLoss
from greedypipe.pipeline.methods.cross_entropy import CrossEntropy
from greedypipe.pipeline.methods.none import Untrained
from greedypipe.pipeline.methods.predsim import PredSim
from greedypipe.pipeline.methods.reconstruction import Reconstruction
from greedypipe.pipeline.methods.reconstruction_only import ReconstructionOnly
from greedypipe.pipeline.plugins import Family, Own, check_options, resolve
from greedypipe.pipeline.site import Site

METHODS: Mapping[str, type[Method]] = {
    "cross_entropy": CrossEntropy,
    "predsim": PredSim,
    "reconstruction": Reconstruction,
    "reconstruction_only": ReconstructionOnly,
    "none": Untrained,
}
"""Every method by its name in the configuration: a class with a nested `Config`."""

METHOD_FAMILY: Family[MethodConfig] = Family(
    "method", {name: method.Config for name, method in METHODS.items()}, "cross_entropy"
)


def method_class(config: BaseModel) -> type[Method]:
    """The class that a section `method` names; of all blocks but the last, whose method is `TaskLoss`.

    Raises:
        ValueError: A user's own method is not there, or is no method.
    """
    if not isinstance(config, Own):
        return METHODS[config.model_dump()["name"]]
    found = resolve(config.name)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(f"method.name: got {config.name}, allowed: a class derived from greedypipe's Method")
    return found


def build_method(config: BaseModel, site: Site) -> Method:
    """Builds the method of one block, drawing the initial weights of its parts from torch's global generator.

    Raises:
        ValueError: A user's own method is not there, or takes other options.
    """
    if site.is_last:
        return TaskLoss(site)
    return method_class(config)(site, **_keys(config))


def _keys(config: BaseModel) -> dict[str, Any]:
    if not isinstance(config, Own):
        return config.model_dump(exclude={"name"})
    return dict(check_options(config.name, method_class(config), config.options, positional=1))
