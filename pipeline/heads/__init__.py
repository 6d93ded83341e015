"""Auxiliary heads: the small networks that turn a block's activation into outputs of the task."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from greedypipe.pipeline.heads.auglocal import AugLocalConfig, auglocal
from greedypipe.pipeline.heads.conv import ConvConfig, conv
from greedypipe.pipeline.heads.critic import CriticConfig, critic
from greedypipe.pipeline.heads.dgl import CnnConfig, MlpAuxConfig, MlpSrConfig, cnn, mlp_aux, mlp_sr
from greedypipe.pipeline.heads.head import Head, HeadConfig, on_maps, on_vectors
from greedypipe.pipeline.heads.infopro import InfoProConfig, infopro
from greedypipe.pipeline.heads.linear import LinearConfig, linear
from greedypipe.pipeline.heads.mlp import MlpConfig, mlp
from greedypipe.pipeline.heads.private_layers import PrivateLayersConfig, needs_tokens, private_layers
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
    "auglocal": Head(AugLocalConfig, on_maps(auglocal)),
    "infopro": Head(InfoProConfig, on_maps(infopro)),
    "critic": Head(CriticConfig, on_maps(critic)),
    "private_layers": Head(PrivateLayersConfig, private_layers, needs_tokens),
}
"""Every head by its name in the configuration."""


class OwnHead(HeadConfig, Own):
    """A head of your own: a function or class that is called as object(site, **options)."""

    section: ClassVar[str] = "head"
    positional: ClassVar[int] = 1


HEAD_FAMILY: Family[HeadConfig] = Family(
    "head", {name: head.config for name, head in HEADS.items()}, default="conv", own=OwnHead
)


def head_at(config: HeadConfig, index: int) -> HeadConfig:
    """The section `head` of block `index`, without `by_block`; of later blocks than `by_block` has entries, the last one's.

    Raises:
        ValidationError: The keys do not fit the head.
    """
    own = config.by_block[min(index, len(config.by_block) - 1)] if config.by_block else {}
    has_other_name = own.get("name", config.name) != config.name
    shared: dict[str, Any] = {} if has_other_name else config.model_dump(exclude={"by_block"})
    return HEAD_FAMILY.choose({**shared, **own})


def check_head(config: HeadConfig, site: Site) -> None:
    """Checks that the head of a section `head` can stand at `site`.

    Raises:
        ValueError: It cannot; one line.
    """
    if not isinstance(config, OwnHead) and (reason := HEADS[config.name].refusal(site)):
        raise ValueError(f"head.name: got {config.name} at block {site.index}, {reason}")


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
    return HEADS[config.name].build(site, **config.model_dump(exclude={"name", "by_block"}))
