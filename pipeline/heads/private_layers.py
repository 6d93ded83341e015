"""Private layers: a head for tokens with transformer layers of its own, which are not on the path to the next block."""

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from greedypipe.pipeline.heads.head import HeadConfig, MeanOverTokens
from greedypipe.pipeline.site import Site

Reads = Literal["class_token", "mean"]


class PrivateLayersConfig(HeadConfig):
    """Transformer layers of its own in the network's shape, normalisation, linear on the class token; for transformers."""

    name: Literal["private_layers"] = "private_layers"
    depth: int = Field(1, ge=0, description="transformer layers; 0: linear alone")
    reads: Reads = Field("class_token", description="what is read of the tokens: the first one, or their mean")


class FirstToken(nn.Module):
    """[N, T, C] -> [N, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


def private_layers(site: Site, depth: int, reads: Reads) -> nn.Module:
    """`depth` pre-normalised encoder layers with the heads and the hidden features of the network's own, layer
    normalisation, class token or mean, linear; depth 0 has neither layers nor normalisation."""
    width = site.shapes.output[1]
    attention = _attention(site)
    hidden = next((one.out_features for one in _modules(site) if _widens(one, width)), 4 * width)
    layers: list[nn.Module] = [
        nn.TransformerEncoderLayer(
            width, attention.num_heads, hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        for _ in range(depth)
    ]
    layers += [nn.LayerNorm(width)] if depth else []
    pooling = FirstToken() if reads == "class_token" else MeanOverTokens()
    return nn.Sequential(*layers, pooling, nn.Linear(width, site.task.outputs))


def needs_tokens(site: Site) -> str:
    """Why the head cannot stand at `site`; empty where it can."""
    shape = site.shapes.output
    if len(shape) == 2 and not site.is_signal and _attention(site):
        return ""
    return f"at an activation {list(shape)}, allowed: tokens [T, C] of a network with attention"


def _modules(site: Site) -> list[Any]:
    layers = (*site.earlier_layers, *site.layers, *site.later_layers)
    return [module for layer in layers for module in layer.module.modules()]


def _attention(site: Site) -> Any:
    """The network's first attention as wide as the activation; None where there is none."""
    kinds = [module for module in _modules(site) if isinstance(module, nn.MultiheadAttention)]
    return next((one for one in kinds if one.embed_dim == site.shapes.output[-1]), None)


def _widens(module: Any, width: int) -> bool:
    """Whether it is the first linear layer behind an attention of that width."""
    is_plain = type(module) is nn.Linear  # attention has linear layers of its own class
    return is_plain and bool(module.in_features == width) and bool(module.out_features > width)
