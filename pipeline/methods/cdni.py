"""DNI whose synthesiser sees the labels (Jaderberg et al., ICML 2017, 1608.05343, section 3.1: cDNI).

Without them a synthesiser must guess the class from an activation that does not show it yet; so this is the variant that
trains convolutional networks. See `dni` for the rule and its cost.
"""

from typing import Literal

from greedypipe.pipeline.methods.dni import SyntheticGradients


class ConditionedSyntheticGradients(SyntheticGradients):
    """Synthetic gradients from activations and labels."""

    class Config(SyntheticGradients.Config):
        """cDNI: synthetic gradients, from activations and labels (Jaderberg et al. 2017)."""

        name: Literal["cdni"] = "cdni"  # type: ignore[assignment]

    sees_labels = True
