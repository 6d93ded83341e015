"""Auxiliary heads: the small networks that turn a block's activation into outputs of the task."""

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from greedypipe.pipeline.heads.conv import ConvConfig, conv
from greedypipe.pipeline.heads.dgl import CnnConfig, MlpAuxConfig, MlpSrConfig, cnn, mlp_aux, mlp_sr
from greedypipe.pipeline.heads.head import Head, HeadConfig, on_maps, on_vectors
from greedypipe.pipeline.heads.linear import LinearConfig, linear
from greedypipe.pipeline.heads.mlp import MlpConfig, mlp
from greedypipe.pipeline.own_code import OwnCodeError
from greedypipe.pipeline.plugins import Family, Own
from greedypipe.pipeline.site import Site

HEADS: Mapping[str, Head] = {
    "linear": Head(LinearConfig, on_maps(linear)),
    "mlp": Head(MlpConfig, on_vectors(mlp)),
    "mlp_aux": Head(MlpAuxConfig, on_maps(mlp_aux)),
    "mlp_sr": Head(MlpSrConfig, on_maps(mlp_sr)),
    "cnn": Head(CnnConfig, on_maps(cnn)),
    "conv": Head(ConvConfig, on_maps(conv)),
}
"""Every head by its name in the configuration."""


class OwnHead(HeadConfig, Own):
    """A head of your own: a function or class that is called as object(site, **options)."""

    section: ClassVar[str] = "head"
    positional: ClassVar[int] = 1


HEAD_FAMILY: Family[HeadConfig] = Family(
    "head", {name: head.config for name, head in HEADS.items()}, default="mlp_sr", own=OwnHead
)


def build_head(config: HeadConfig, site: Site) -> nn.Module:
    """Builds the head that a section `head` asks for, drawing its weights from torch's global generator.

    Raises:
        ValueError: A user's own head is not a module, or raises an error.
    """
    if isinstance(config, OwnHead):
        head = config.call(site)
        if not isinstance(head, nn.Module):
            raise OwnCodeError(config.subject, f"returned a {type(head).__name__}, allowed: a torch.nn.Module")
        return head
    return HEADS[config.name].build(site, **config.model_dump(exclude={"name"}))
