"""A network as the rest of the project sees it: layers, between any two of which it may be cut, and a classifier."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One cuttable unit of a network.

    Its module takes and returns one tensor whose first dimension is the batch, and never changes its input in
    place.

    Attributes:
        name: Unique within the network, e.g. ``conv1``, ``pool1``, ``layer2.0``.
        prefix: Put before the keys of the module's own state dict, it gives the ordinary network's names; '' for none.
        module: The computation and its parameters.
        residuals: Names of the modules inside it whose outputs are added to a shortcut.
    """

    name: str
    prefix: str
    module: nn.Module
    residuals: tuple[str, ...] = ()

    def qualified(self, key: str) -> str:
        """Returns the ordinary network's name of a state-dict key, e.g. ``layer2.0.conv1.weight``."""
        return f"{self.prefix}.{key}" if self.prefix else key

    @property
    def branches(self) -> tuple[nn.Module, ...]:
        """The last modules of the residual branches: what they return is added to a shortcut."""
        return tuple(self.module.get_submodule(name) for name in self.residuals)

    @property
    def has_parameters(self) -> bool:
        """Whether the layer has parameters; pooling has none."""
        return next(self.module.parameters(), None) is not None


@dataclass(frozen=True)
class Network:
    """Layers in order and the classifier behind the last of them.

    Attributes:
        layers: The layers in order; the network may be cut between any two.
        classifier: Turns the last activation, [N, ...], into logits, [N, classes]; the last block's head.
    """

    layers: tuple[Layer, ...]
    classifier: Layer

    def __post_init__(self) -> None:
        names = [layer.name for layer in (*self.layers, self.classifier)]
        assert self.layers, "a network has at least one layer"
        assert len(set(names)) == len(names), f"layer names must be unique, got {names}"

    def state_dict(self) -> dict[str, Tensor]:
        """Returns parameters and statistics under the ordinary network's names.

        The tensors are detached and share the modules' storage.
        """
        state: dict[str, Tensor] = {}
        for layer in (*self.layers, self.classifier):
            for key, value in layer.module.state_dict().items():
                name = layer.qualified(key)
                assert name not in state, f"layer {layer.name!r} repeats the state-dict name {name!r}"
                state[name] = value
        return state
