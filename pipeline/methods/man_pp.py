"""MAN++ (Su et al., 2507.16279): MAN with a trainable scalar between copy and average.

    head of block k: head(s * bias(h) + (2 - s) * average(h)), s = 1 at first

The scalar can diverge at learning rates from 0.05 on. See `man` for the rule and its cost.
"""

from typing import Literal

from greedypipe.pipeline.methods.man import MomentumAuxiliary


class ScaledMomentumAuxiliary(MomentumAuxiliary):
    """MAN whose average is weighed by a trainable scalar."""

    class Config(MomentumAuxiliary.Config):
        """MAN++: MAN with a trainable scalar between copy and average (Su et al. 2025)."""

        name: Literal["man_pp"] = "man_pp"  # type: ignore[assignment]

    is_scaled = True
