"""Methods: how one block learns. One file each, and one line in the table."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import field_validator

from greedypipe.pipeline.method import Method, MethodConfig
from greedypipe.pipeline.methods.cdni import ConditionedSyntheticGradients
from greedypipe.pipeline.methods.coarse_labels import CoarseLabels
from greedypipe.pipeline.methods.cross_entropy import CrossEntropy
from greedypipe.pipeline.methods.cross_entropy_supcon import CrossEntropyAndContrast
from greedypipe.pipeline.methods.ddg import DelayedGradients
from greedypipe.pipeline.methods.dfa import DirectFeedback
from greedypipe.pipeline.methods.dni import SyntheticGradients
from greedypipe.pipeline.methods.dtp import TargetPropagation
from greedypipe.pipeline.methods.fdg import ShrunkDelayedGradients
from greedypipe.pipeline.methods.features_replay import FeaturesReplay
from greedypipe.pipeline.methods.infopro_contrast import InfoProContrast
from greedypipe.pipeline.methods.infopro_softmax import InfoProSoftmax
from greedypipe.pipeline.methods.last_gradient import LastGradient
from greedypipe.pipeline.methods.late_chain import LateChain
from greedypipe.pipeline.methods.local_critic import LocalCritic
from greedypipe.pipeline.methods.man import MomentumAuxiliary
from greedypipe.pipeline.methods.man_pp import ScaledMomentumAuxiliary
from greedypipe.pipeline.methods.none import Untrained
from greedypipe.pipeline.methods.overlap import Overlap
from greedypipe.pipeline.methods.overlap_weights import OverlapThroughWeights
from greedypipe.pipeline.methods.pred import Pred
from greedypipe.pipeline.methods.predsim import PredSim
from greedypipe.pipeline.methods.reconstruction import Reconstruction
from greedypipe.pipeline.methods.reconstruction_only import ReconstructionOnly
from greedypipe.pipeline.methods.sim import Sim
from greedypipe.pipeline.methods.supcon import SupervisedContrast
from greedypipe.pipeline.methods.trgl import TransportRegularised
from greedypipe.pipeline.own_code import resolve
from greedypipe.pipeline.plugins import Family, Own
from greedypipe.pipeline.site import Site

METHODS: Mapping[str, type[Method]] = {
    "cross_entropy": CrossEntropy,
    "pred": Pred,
    "sim": Sim,
    "predsim": PredSim,
    "supcon": SupervisedContrast,
    "cross_entropy_supcon": CrossEntropyAndContrast,
    "reconstruction": Reconstruction,
    "reconstruction_only": ReconstructionOnly,
    "infopro_softmax": InfoProSoftmax,
    "infopro_contrast": InfoProContrast,
    "trgl": TransportRegularised,
    "coarse_labels": CoarseLabels,
    "none": Untrained,
    "features_replay": FeaturesReplay,
    "ddg": DelayedGradients,
    "fdg": ShrunkDelayedGradients,
    "dni": SyntheticGradients,
    "cdni": ConditionedSyntheticGradients,
    "local_critic": LocalCritic,
    "last_gradient": LastGradient,
    "dfa": DirectFeedback,
    "dtp": TargetPropagation,
    "overlap": Overlap,
    "overlap_weights": OverlapThroughWeights,
    "late_chain": LateChain,
    "man": MomentumAuxiliary,
    "man_pp": ScaledMomentumAuxiliary,
}
"""Every method by its name in the configuration: a class with a nested `Config`."""


class OwnMethod(MethodConfig, Own):
    """A method of your own: a class derived from greedypipe's LocalLoss or Method, called as object(site, **options)."""

    section: ClassVar[str] = "method"
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
    """The class that a section `method` names; of all blocks but the last, whose method is the class's `at_end`."""
    if isinstance(config, OwnMethod):
        method: type[Method] = resolve(config.name)
        return method
    return METHODS[config.name]


def method_keys(config: MethodConfig) -> dict[str, Any]:
    """The keys of a section `method`, as its class takes them."""
    return config.options if isinstance(config, OwnMethod) else config.model_dump(exclude={"name"})


def build_method(config: MethodConfig, site: Site) -> Method:
    """Builds the method of one block, drawing the initial weights of its parts from torch's global generator."""
    keys = method_keys(config)
    if site.is_last:
        return method_class(config).at_end(site, **keys)
    if isinstance(config, OwnMethod):
        method: Method = config.call(site)
        return method
    return method_class(config)(site, **keys)
