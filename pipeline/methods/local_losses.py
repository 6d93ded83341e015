"""Losses of the batch at hand that train the layers: each is a method, and may be the own loss of one that adds another."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import field_validator

from greedypipe.pipeline.method import LocalLoss, Method, MethodConfig
from greedypipe.pipeline.methods.coarse_labels import CoarseLabels
from greedypipe.pipeline.methods.colourisation import Colourisation
from greedypipe.pipeline.methods.cross_entropy import CrossEntropy
from greedypipe.pipeline.methods.cross_entropy_supcon import CrossEntropyAndContrast
from greedypipe.pipeline.methods.greedy_infomax import GreedyInfoMax
from greedypipe.pipeline.methods.infopro_contrast import InfoProContrast
from greedypipe.pipeline.methods.infopro_softmax import InfoProSoftmax
from greedypipe.pipeline.methods.inpainting import Inpainting
from greedypipe.pipeline.methods.pred import Pred
from greedypipe.pipeline.methods.predsim import PredSim
from greedypipe.pipeline.methods.reconstruction import Reconstruction
from greedypipe.pipeline.methods.reconstruction_only import ReconstructionOnly
from greedypipe.pipeline.methods.rotation import Rotation
from greedypipe.pipeline.methods.sim import Sim
from greedypipe.pipeline.methods.simclr import SimClr
from greedypipe.pipeline.methods.supcon import SupervisedContrast
from greedypipe.pipeline.methods.trgl import TransportRegularised
from greedypipe.pipeline.methods.trgl_uzawa import UzawaRegularised
from greedypipe.pipeline.own_code import resolve
from greedypipe.pipeline.plugins import Family, Own
from greedypipe.pipeline.site import Site

LOCAL_LOSSES: Mapping[str, type[LocalLoss]] = {
    "cross_entropy": CrossEntropy,
    "pred": Pred,
    "sim": Sim,
    "predsim": PredSim,
    "supcon": SupervisedContrast,
    "cross_entropy_supcon": CrossEntropyAndContrast,
    "simclr": SimClr,
    "greedy_infomax": GreedyInfoMax,
    "rotation": Rotation,
    "colourisation": Colourisation,
    "inpainting": Inpainting,
    "reconstruction": Reconstruction,
    "reconstruction_only": ReconstructionOnly,
    "infopro_softmax": InfoProSoftmax,
    "infopro_contrast": InfoProContrast,
    "trgl": TransportRegularised,
    "trgl_uzawa": UzawaRegularised,
    "coarse_labels": CoarseLabels,
}
"""By their names in the configuration."""


class OwnMethod(MethodConfig, Own):
    """A method of your own: a class derived from greedypipe's LocalLoss or Method, called as object(site, **options)."""

    section: ClassVar[str] = "method"
    positional: ClassVar[int] = 1
    base: ClassVar[type] = Method

    @field_validator("name")
    @classmethod
    def _names_a_method(cls, name: str) -> str:
        found = resolve(name)
        if not (isinstance(found, type) and issubclass(found, cls.base)):
            allowed = "LocalLoss" if cls.base is LocalLoss else "LocalLoss or Method"
            raise ValueError(f"got {name}, allowed: a class derived from {allowed} of greedypipe.pipeline.method")
        return name


class OwnLocalLoss(OwnMethod):
    """A local loss of your own: a class derived from greedypipe's LocalLoss, called as object(site, **options)."""

    section: ClassVar[str] = "method.local"
    base: ClassVar[type] = LocalLoss


LOCAL_FAMILY: Family[MethodConfig] = Family(
    "local loss", {name: one.Config for name, one in LOCAL_LOSSES.items()}, default="cross_entropy", own=OwnLocalLoss
)


def keys_of(config: MethodConfig) -> dict[str, Any]:
    """What a method is built with besides its site."""
    if isinstance(config, OwnMethod):
        return config.options
    return {key: value for key, value in config if key != "name"}


def local_class(config: MethodConfig) -> type[LocalLoss]:
    """The class that a section `method.local` names."""
    if isinstance(config, OwnMethod):
        local: type[LocalLoss] = resolve(config.name)
        return local
    return LOCAL_LOSSES[config.name]


def build_local_loss(config: MethodConfig, site: Site) -> LocalLoss:
    """Builds the loss of one block, drawing the initial weights of its parts from torch's global generator."""
    if isinstance(config, OwnMethod):
        loss: LocalLoss = config.call(site)
        return loss
    return LOCAL_LOSSES[config.name](site, **keys_of(config))
