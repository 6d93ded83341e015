"""torchvision's networks, cut into layers, are still torchvision's."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from greedypipe.pipeline.networks import MODEL_FAMILY, Network, activation_shapes

OTHER_RESNETS = ("resnet34", "resnet101", "resnet152")


@pytest.fixture(autouse=True)
def one_thread_and_a_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def build(name: str, shape: tuple[int, int, int] = (3, 64, 64), num_classes: int = 10) -> Network:
    return MODEL_FAMILY.choose({"name": name}).build(shape, num_classes)


def original(name: str, **keys: int) -> nn.Module:
    from torchvision import models

    with torch.device("meta"):
        return getattr(models, name)(**keys)


def forward(network: Network, x: Tensor) -> Tensor:
    with torch.no_grad():
        for layer in (*network.layers, network.classifier):
            x = layer.module.eval()(x)
    return x


@pytest.mark.parametrize("name", OTHER_RESNETS)
def test_a_resnet_keeps_torchvisions_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        state = build(name, num_classes=1000).state_dict()
    expected = original(name, num_classes=1000).state_dict()
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in expected.items()}


def test_resnet18_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = build("resnet18", num_classes=1000)
    modules = [layer.module for layer in (*network.layers, network.classifier)]
    assert sum(p.numel() for module in modules for p in module.parameters()) == 11_689_512


@pytest.mark.parametrize(("name", "side"), [("resnet18", 64), ("resnet50", 32)])
def test_a_resnets_logits_are_those_of_torchvision_bit_for_bit(name: str, side: int) -> None:
    network = build(name, (3, side, side))
    model = original(name, num_classes=10)
    model.load_state_dict(network.state_dict(), strict=True, assign=True)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(forward(network, x), model.eval()(x))


def test_vit_logits_are_those_of_torchvision_bit_for_bit() -> None:
    with torch.device("meta"):
        network = build("vit_b_16", (3, 32, 32))
    for layer in (*network.layers, network.classifier):
        for parameter in layer.module.to_empty(device="cpu").parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)  # as torchvision starts it, all logits are zero
    model = original("vit_b_16", image_size=32, num_classes=10)
    model.load_state_dict(network.state_dict(), strict=True, assign=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits = model.eval()(x)
    assert torch.equal(forward(network, x), logits)
    assert logits.std() > 0


def test_vit_is_cut_between_encoder_layers() -> None:
    with torch.device("meta"):
        network = build("vit_b_16", (3, 224, 224), num_classes=1000)
    assert [layer.name for layer in network.layers] == [
        "conv_proj",
        *(f"encoder_layer_{i}" for i in range(12)),
    ]
    assert activation_shapes(network.layers, (3, 224, 224)) == [(197, 768)] * 13
    assert {"conv_proj.weight", "class_token", "encoder.pos_embedding"} < set(network.state_dict())


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnet18", (1, 32, 32), "network 'resnet18' needs images with 3 channels, got 1"),
        ("vit_b_16", (1, 32, 32), "network 'vit_b_16' needs images with 3 channels, got 1"),
        ("vit_b_16", (3, 28, 28), "divisible by 16, got 28x28"),
        ("vit_b_16", (3, 32, 64), "square images .* got 32x64"),
    ],
)
def test_images_that_do_not_fit_are_refused(name: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, shape)


def forget_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)


def test_a_missing_torchvision_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_torchvision(monkeypatch)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match="install torch and torchvision from the same package index"):
        build("resnet18")


def test_a_torchvision_of_another_build_is_the_same_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n", encoding="utf-8"
    )
    forget_torchvision(monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"operator torchvision::nms does not exist\): install torch"):
        build("vit_b_16")
