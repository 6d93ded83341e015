"""Methods: how one block learns. One file each, and one line in the table."""

from collections.abc import Mapping

from greedypipe.pipeline.method import Method, MethodConfig
from greedypipe.pipeline.methods.cdni import ConditionedSyntheticGradients
from greedypipe.pipeline.methods.ddg import DelayedGradients
from greedypipe.pipeline.methods.dfa import DirectFeedback
from greedypipe.pipeline.methods.dni import SyntheticGradients
from greedypipe.pipeline.methods.dtp import TargetPropagation
from greedypipe.pipeline.methods.fdg import ShrunkDelayedGradients
from greedypipe.pipeline.methods.features_replay import FeaturesReplay
from greedypipe.pipeline.methods.last_gradient import LastGradient
from greedypipe.pipeline.methods.late_chain import LateChain
from greedypipe.pipeline.methods.local_critic import LocalCritic
from greedypipe.pipeline.methods.local_losses import LOCAL_LOSSES, OwnMethod, keys_of
from greedypipe.pipeline.methods.man import MomentumAuxiliary
from greedypipe.pipeline.methods.man_pp import ScaledMomentumAuxiliary
from greedypipe.pipeline.methods.none import Untrained
from greedypipe.pipeline.methods.overlap import Overlap
from greedypipe.pipeline.methods.overlap_weights import OverlapThroughWeights
from greedypipe.pipeline.own_code import resolve
from greedypipe.pipeline.plugins import Family
from greedypipe.pipeline.site import Site

METHODS: Mapping[str, type[Method]] = {
    **LOCAL_LOSSES,
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


METHOD_FAMILY: Family[MethodConfig] = Family(
    "method", {name: method.Config for name, method in METHODS.items()}, default="cross_entropy", own=OwnMethod
)


def method_class(config: MethodConfig) -> type[Method]:
    """The class that a section `method` names; of all blocks but the last, whose method is the class's `at_end`."""
    if isinstance(config, OwnMethod):
        method: type[Method] = resolve(config.name)
        return method
    return METHODS[config.name]


def needs_of(config: MethodConfig) -> frozenset[str]:
    """Names of the tensors that messages must carry as far as a block that learns by this method."""
    return method_class(config).needed(**keys_of(config))


def wanted_views(config: MethodConfig) -> int:
    """Views of every sample that a block needs that learns by this method."""
    return method_class(config).wanted_views(**keys_of(config))


def unshared(config: MethodConfig, is_last: bool) -> str:
    """Why replicas cannot share the batches of a block that learns by this method; empty where they can."""
    return method_class(config).unshared(is_last, **keys_of(config))


def looks_inside(config: MethodConfig) -> bool:
    """Whether the method looks at what modules inside a block return."""
    return method_class(config).looks_inside(**keys_of(config))


def check_method(config: MethodConfig, site: Site) -> None:
    """Checks that the block at `site`, which is not the last one, can learn by this method.

    Raises:
        ValueError: It cannot; one line.
    """
    method_class(config).check(site, **keys_of(config))


def build_method(config: MethodConfig, site: Site) -> Method:
    """Builds the method of one block, drawing the initial weights of its parts from torch's global generator."""
    if site.is_last:
        return method_class(config).at_end(site, **keys_of(config))
    if isinstance(config, OwnMethod):
        method: Method = config.call(site)
        return method
    return method_class(config)(site, **keys_of(config))
