"""What is wrong with a user's own code is one line that names it, with file and line, before anything starts."""

import re
from pathlib import Path

import pytest
import torch

import greedypipe
from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.config.loader import load_config
from greedypipe.launch.planning.run_plan import Plan, make_plan
from greedypipe.pipeline.method import LocalLoss
from greedypipe.pipeline.own_code import OwnCodeError, blaming

BEGINNING = """\
import torch
from torch import Tensor, nn, optim
from greedypipe import LocalLoss, Method, Sample, Site, Turn
"""
METHOD, HEAD, NETWORK, OPTIMIZER, DATA = (f"{one}.name" for one in ("method", "head", "model", "optimizer", "data"))
TINY = ("model.name=vgg8b", "model.width=0.1", "data.batch_size=256", "training.epochs=1", "partition.blocks=2")


def network(*layers: str) -> str:
    return f"def Mine(input_shape, num_classes): return nn.Sequential({', '.join(layers)})"


def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, code: str, *overrides: str) -> Plan:
    """The plan of a run with an object `Mine` in a module of its own, `own.py` by another name."""
    module = f"own_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(f"{BEGINNING}{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    tiny = [one for one in TINY if not (key == NETWORK and one.startswith("model."))]
    return make_plan(load_config(None, [*tiny, f"{key}={module}:Mine", *overrides]), 2)


def complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, code: str, *overrides: str) -> list[str]:
    """The lines of the refusal, with `own` for the module and `own.py` for its path."""
    with pytest.raises(ConfigError) as refused:
        planned(tmp_path, monkeypatch, key, code, *overrides)
    module = f"own_{tmp_path.name}"
    return str(refused.value).replace(str(tmp_path / module), "own").replace(module, "own").splitlines()


WHERE_IT_IS_SAID: dict[str, tuple[str, str, str]] = {
    "the module has a syntax error": (
        METHOD,
        "x = = 5",
        "command line: method.name: own:Mine: SyntaxError: invalid syntax (own.py:4)",
    ),
    "the module fails": (
        HEAD,
        "size = 5\nhalf = size / 0",
        "command line: head.name: own:Mine: ZeroDivisionError: division by zero (own.py:5)",
    ),
    "the module needs another one": (
        DATA,
        "import no_such_dependency",
        "command line: data.name: own:Mine: ModuleNotFoundError: No module named 'no_such_dependency' (own.py:4)",
    ),
    "the module ends the program": (
        NETWORK,
        "raise SystemExit('usage')",
        "command line: model.name: own:Mine: SystemExit: usage (own.py:4)",
    ),
    "no such object": (
        METHOD,
        "class Mime(LocalLoss): pass",
        "command line: method.name: own:Mine: module 'own' has no 'Mine'; did you mean 'Mime'?",
    ),
    "a method that is no class": (
        METHOD,
        "def Mine(site): pass",
        "command line: method.name: got own:Mine, allowed: a class derived from LocalLoss or Method of "
        "greedypipe.pipeline.method",
    ),
    "a head that is no function": (
        HEAD,
        "Mine = 5",
        "command line: head.name: own:Mine: got int, allowed: a function or class",
    ),
    "a head that takes nothing": (
        HEAD,
        "def Mine(): pass",
        "command line: head.name: own:Mine takes 0 arguments, but is called with 1 and its options",
    ),
    "a method that has no loss": (
        METHOD,
        "class Mine(LocalLoss): pass",
        "method.name=own:Mine: TypeError: Can't instantiate abstract class Mine with abstract method loss",
    ),
    "a constructor that raises": (
        METHOD,
        "class Mine(LocalLoss):\n    def __init__(self, site):\n        self.head = nn.Linear(1, 1)",
        "method.name=own:Mine: TypeError: Can't instantiate abstract class Mine with abstract method loss",
    ),
    "a constructor that forgets to call the one above": (
        METHOD,
        "class Mine(LocalLoss):\n"
        "    def __init__(self, site):\n        self.projection = nn.Linear(1, 1)\n"
        "    def loss(self, sample): pass",
        "method.name=own:Mine: AttributeError: cannot assign module before Module.__init__() call (own.py:6)",
    ),
    "a loss that fails": (
        METHOD,
        "class Mine(LocalLoss):\n    def loss(self, sample):\n        return sample.x.view(-1, 7).mean()",
        "method.name=own:Mine: RuntimeError: shape '[-1, 7]' is invalid for input of size 256 (own.py:6)",
    ),
    "a loss that needs what does not travel": (
        METHOD,
        "class Mine(LocalLoss):\n    def loss(self, sample):\n        return sample.extras['image'].mean()",
        "method.name=own:Mine: KeyError: 'image' (own.py:6)",
    ),
    "a method with unknown needs": (
        METHOD,
        "class Mine(LocalLoss):\n    needs = frozenset({'depth'})\n    def loss(self, sample): pass",
        "method.name: got own:Mine, which needs 'depth', allowed: methods that need image or labels",
    ),
    "a loss per sample": (
        METHOD,
        "class Mine(LocalLoss):\n"
        "    def loss(self, sample): return self.task.loss(self.head(sample.h), sample.labels, 'none')",
        "method.name=own:Mine: got the loss float32 [4], allowed: float32 []",
    ),
    "a loss that is a number": (
        METHOD,
        "class Mine(LocalLoss):\n    def loss(self, sample): return 0.5",
        "method.name=own:Mine: got the loss float, allowed: float32 []",
    ),
    "a loss without a graph": (
        METHOD,
        "class Mine(LocalLoss):\n    def loss(self, sample): return sample.h.detach().mean()",
        "method.name=own:Mine: got a loss that depends on no parameter and not on the activation: it was detached",
    ),
    "a method that returns nothing": (
        METHOD,
        "class Mine(Method):\n    def learn(self, turn): turn.backward(turn.fresh.h.mean())",
        "method.name=own:Mine: learn() returned NoneType, allowed: the detached loss, float32 []",
    ),
    "a method with a head of another shape": (
        METHOD,
        "class Mine(LocalLoss):\n"
        "    def __init__(self, site):\n        super().__init__(site)\n        self.head = nn.Flatten()\n"
        "    def loss(self, sample): pass",
        "method.name=own:Mine: got outputs float32 [4, 384] of an activation float32 [4, 24, 4, 4], allowed: "
        "floating-point numbers [4, 10]",
    ),
    "no module": (
        HEAD,
        "def Mine(site): return lambda h: h",
        "head.name=own:Mine: returned a function, allowed: a torch.nn.Module",
    ),
    "outputs of another shape": (
        HEAD,
        "def Mine(site): return nn.Sequential(nn.Flatten(), nn.Linear(384, 7))",
        "head.name=own:Mine: got outputs float32 [4, 7] of an activation float32 [4, 24, 4, 4], allowed: floating-point "
        "numbers [4, 10]",
    ),
    "several outputs": (
        HEAD,
        "class Mine(nn.Module):\n    def __init__(self, site): super().__init__()\n    def forward(self, h): return h, h",
        "head.name=own:Mine: got outputs tuple of an activation float32 [4, 24, 4, 4], allowed: floating-point numbers "
        "[4, 10]",
    ),
    "a head that fails": (
        HEAD,
        "class Mine(nn.Module):\n    def __init__(self, site): super().__init__()\n    def forward(self, h): return h[99]",
        "head.name=own:Mine: IndexError: index 99 is out of bounds for dimension 0 with size 4 (own.py:6)",
    ),
    "a head that writes into the activation": (
        HEAD,
        "class Mine(nn.Module):\n    def __init__(self, site): super().__init__()\n"
        "    def forward(self, h): return h.mul_(2).flatten(1)[:, :10]",
        "head.name=own:Mine: the head writes into the activation, which later blocks read",
    ),
    "a network that is no sequence": (
        NETWORK,
        "def Mine(input_shape, num_classes): return nn.Linear(1, 1)",
        "own:Mine must return an nn.Sequential, got Linear",
    ),
    "a network that fails": (
        NETWORK,
        "def Mine(input_shape, num_classes): return nn.Sequential(*input_shape)",
        "model.name=own:Mine: TypeError: int is not a Module subclass (own.py:4)",
    ),
    "layers that do not fit": (
        NETWORK,
        network("nn.Flatten()", "nn.Linear(63, 10)", "nn.Linear(10, num_classes)"),
        "layer '1' does not accept input of shape (64,): mat1 and mat2 shapes cannot be multiplied (1x64 and 63x10)",
    ),
    "a layer that returns two tensors": (
        NETWORK,
        network("nn.Flatten(2)", "nn.LSTM(64, 8)", "nn.Linear(8, num_classes)"),
        "layer '1' returned a tuple, allowed: a tensor",
    ),
    "a layer that fails": (
        NETWORK,
        "class Layer(nn.Module):\n    def forward(self, x): return x.no_such_method()\n"
        + network("Layer()", "nn.Flatten()", "nn.Linear(64, num_classes)"),
        "model.name=own:Mine: AttributeError: 'Tensor' object has no attribute 'no_such_method' (own.py:5)",
    ),
    "a layer that fails in training": (
        NETWORK,
        "class Layer(nn.Module):\n    def forward(self, x): return x.flatten(1) / (not self.training or None)\n"
        + network("nn.Conv2d(1, 1, 1)", "Layer()", "nn.Linear(64, 8)", "nn.Linear(8, num_classes)"),
        "model.name=own:Mine: TypeError: unsupported operand type(s) for /: 'Tensor' and 'NoneType' (own.py:5)",
    ),
    "a layer with another shape in training": (
        NETWORK,
        "class Layer(nn.Module):\n    def forward(self, x): return x.flatten(1)[:, :8 + self.training]\n"
        + network("nn.Conv2d(1, 1, 1)", "Layer()", "nn.LayerNorm(8)", "nn.Linear(8, num_classes)"),
        "model.name=own:Mine: block 0 returned float32 [4, 9] in training, allowed: [4, 8] as before",
    ),
    "layers that write into their input": (
        NETWORK,
        "class Layer(nn.Linear):\n    def forward(self, x): return super().forward(x.add_(1).flatten(1))\n"
        + network("nn.Conv2d(1, 1, 1)", "Layer(64, 8)", "nn.Linear(8, num_classes)"),
        "model.name=own:Mine: block 1 writes into its input, which may be read again",
    ),
    "logits of another number": (
        NETWORK,
        network("nn.Flatten()", "nn.Linear(64, 8)", "nn.Linear(8, 8)", "nn.Linear(8, 3)"),
        "model.name=own:Mine: got outputs float32 [4, 3] of an activation float32 [4, 8], allowed: floating-point numbers "
        "[4, 10]",
    ),
    "an optimizer that needs a closure": (
        OPTIMIZER,
        "Mine = optim.LBFGS",
        "command line: optimizer.name: own:Mine: step(): TypeError: LBFGS.step() missing 1 required positional argument: "
        "'closure'",
    ),
    "an optimizer that fails": (
        OPTIMIZER,
        "class Mine(optim.Optimizer):\n    def __init__(self, params, lr): super().__init__(params, {'lr': lr})\n"
        "    def step(self): self.param_groups[1]",
        "command line: optimizer.name: own:Mine: step(): IndexError: list index out of range (own.py:6)",
    ),
    "a data set that fails": (
        DATA,
        "def Mine(): return open('no such file')",
        "data.name=own:Mine: FileNotFoundError: [Errno 2] No such file or directory: 'no such file' (own.py:4)",
    ),
    "a data set whose items fail": (
        DATA,
        "class Set(torch.utils.data.Dataset):\n    def __len__(self): return 5\n"
        "    def __getitem__(self, index): return [][index]\ndef Mine(): return Set(), Set()",
        "data.name=own:Mine: train[0]: IndexError: list index out of range (own.py:6)",
    ),
}


@pytest.mark.parametrize("case", WHERE_IT_IS_SAID)
def test_what_is_wrong_is_one_line_before_anything_starts(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, code, expected = WHERE_IT_IS_SAID[case]
    (line,) = complaint(tmp_path, monkeypatch, key, code)
    assert line == expected


TYPED = """
class Mine(LocalLoss):
    def __init__(self, site: Site, widths: tuple[int, ...], rate: float = 0.5, kind: "NoSuchType" = None):
        super().__init__(site)
        assert isinstance(rate, float)
    def loss(self, sample):
        return self.task.loss(self.head(sample.h), sample.labels)
"""
UNTYPED = TYPED.replace(', kind: "NoSuchType" = None', "")


def test_options_have_the_types_of_the_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(tmp_path, monkeypatch, METHOD, UNTYPED, "method.options={widths: [3, 4], rate: 1}")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("{widths: [3], rate: high}", ["rate: got 'high', allowed: a valid number, unable to parse string as a number"]),
        ("{widths: 3, rte: 1}", ["rte: unknown option of own:Mine; did you mean rate?"]),
        ("{widths: [3, x]}", ["widths.1: got 'x', allowed: a valid integer, unable to parse string as an integer"]),
        ("{rate: 1}", ["widths: missing: own:Mine needs it"]),
    ],
)
def test_wrong_options_are_refused_at_their_keys(
    options: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = complaint(tmp_path, monkeypatch, METHOD, UNTYPED, f"method.options={options}")
    assert found == [f"command line: method.options.{line}" for line in expected]


def test_types_that_cannot_be_evaluated_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(tmp_path, monkeypatch, METHOD, TYPED, "method.options={widths: [3], rate: 1.0, kind: 3}")


def test_trying_it_out_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "class Mine(LocalLoss):\n"
        "    def loss(self, sample): return self.task.loss(self.head(sample.h), sample.labels) * torch.rand(())"
    )
    own = planned(tmp_path, monkeypatch, METHOD, code)
    drawn = torch.rand(3)
    greedypipes = make_plan(load_config(None, list(TINY)), 2)
    assert torch.equal(drawn, torch.rand(3))
    one, other = own.blueprint.network.state_dict(), greedypipes.blueprint.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_findings_of_others_pass_as_they_are() -> None:
    with pytest.raises(ValueError, match=re.escape("layer 'x' is odd")), blaming("head.name=mine:head", "mine"):
        raise ValueError("layer 'x' is odd")
    with pytest.raises(KeyboardInterrupt), blaming("head.name=mine:head", "mine"):
        raise KeyboardInterrupt
    with (
        pytest.raises(OwnCodeError, match="inner: once"),
        blaming("outer", "tests"),
        blaming("inner", "tests"),
    ):
        raise OwnCodeError("inner", "once")


def test_what_own_code_needs_comes_from_greedypipe_itself() -> None:
    found = {name: getattr(greedypipe, name) for name in greedypipe.__all__}
    assert {found[name].__name__ for name in found if name != "__version__"} == set(found) - {"__version__"}
    assert found["LocalLoss"] is LocalLoss
    with pytest.raises(AttributeError, match="module 'greedypipe' has no attribute 'LocalLos'"):
        _ = greedypipe.LocalLos


@pytest.mark.parametrize("name", ["late_chain", "dtp", "dni"])
def test_methods_with_feedback_are_tried_on_a_network_of_ones_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They follow gradients back, and run the layers on other inputs, in their first turn already."""
    layers = (
        "nn.Conv2d(1, 4, 3, padding=1)",
        "nn.Conv2d(4, 8, 3, padding=1)",
        "nn.Sequential(nn.Flatten(), nn.Linear(512, 10))",
    )
    planned(tmp_path, monkeypatch, NETWORK, network(*layers), f"{METHOD}={name}", "data.name=digits")
