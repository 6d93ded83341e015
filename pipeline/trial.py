"""A turn on noise for networks with parts of the user's own: what does not fit is found before anything starts."""

import math
from typing import NoReturn

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from greedypipe.pipeline.batch import IMAGE, Batch, made_up
from greedypipe.pipeline.block import Block
from greedypipe.pipeline.build import Blueprint
from greedypipe.pipeline.method import Sample, Turn
from greedypipe.pipeline.own_code import OwnCodeError
from greedypipe.pipeline.plugins import Own, blamed
from greedypipe.pipeline.sections import Sections

ROWS = 4


def try_out(blueprint: Blueprint) -> None:
    """Has every block compute the activation, the outputs and the loss of one batch of noise, on copies of the layers.

    Does nothing where network, head and method are greedypipe's. Leaves the blueprint and the random number generator as
    they were.

    Raises:
        ValueError: One line: the user's code raises something, or what it returns has the wrong form.
    """
    sections, task = blueprint.sections, blueprint.task
    if not any(isinstance(part, Own) for part in (sections.model, sections.head, sections.method.innermost)):
        return
    trial = blueprint.for_trials()
    with torch.random.fork_rng(devices=[]):
        x = images = torch.randn(ROWS, *task.input.shape)
        carried = {IMAGE: images} | {spec.name: made_up(spec, ROWS, images.device) for spec in task.extras}
        targets = torch.arange(ROWS * math.prod(task.target.shape)) % task.outputs
        labels = targets.view(ROWS, *task.target.shape).to(task.target.dtype)
        for index in range(trial.num_blocks):
            extras = {name: tensor for name, tensor in carried.items() if name in trial.needs(index)}
            block = trial.build_block(index, torch.device("cpu"))
            batch = Batch(0, labels, extras)
            given, x = x, _activation(sections, block, x, batch)
            _check_outputs(sections, block, x)
            sample = Sample(batch.labels, extras, input=given, output=x.detach().requires_grad_(), trunk=block.trunk)
            _check_learning(sections, block, sample)


class _TrialTurn(Turn):
    """Looks at the loss before it is followed back."""

    def __init__(self, fresh: Sample, part: BaseModel) -> None:
        super().__init__(0, fresh)
        self.part = part

    def backward(self, loss: Tensor, *, about: Sample | None = None, keep_graph: bool = False) -> None:
        if not _is_number(loss):
            _refuse(self.part, f"got the loss {_form(loss)}, allowed: float32 []")
        if not loss.requires_grad:
            _refuse(self.part, "got a loss that depends on no parameter and not on the activation: it was detached")
        super().backward(loss, about=about, keep_graph=keep_graph)


def _activation(sections: Sections, block: Block, x: Tensor, batch: Batch) -> Tensor:
    x = block.precision.canonical(x)
    version, allowed = x._version, (ROWS, *block.shapes.output)
    with blamed(sections.model):
        h = block.forward(x, batch)
    if h.shape != allowed:
        _refuse(sections.model, f"block {block.index} returned {_form(h)} in training, allowed: {list(allowed)} as before")
    if x._version != version:
        _refuse(sections.model, f"block {block.index} writes into its input, which may be read again")
    return h


def _check_outputs(sections: Sections, block: Block, h: Tensor) -> None:
    """The head's outputs; it is the method's business where a method has another head than the section `head` says."""
    head_section: BaseModel = sections.head
    inner = head_section if isinstance(head_section, Own) else sections.method.innermost
    part = sections.model if block.site.is_last else inner
    version, allowed = h._version, (ROWS, block.site.task.outputs)
    with blamed(part), torch.no_grad(), block.precision.autocast(block.device):
        head: nn.Module = block.method.head
        outputs = head(h)
    if not (isinstance(outputs, Tensor) and outputs.shape == allowed and outputs.is_floating_point()):
        of = f"of an activation {_form(h)}"
        _refuse(part, f"got outputs {_form(outputs)} {of}, allowed: floating-point numbers {list(allowed)}")
    if h._version != version:
        _refuse(part, "the head writes into the activation, which later blocks read")


def _check_learning(sections: Sections, block: Block, sample: Sample) -> None:
    if block.site.is_last:
        return
    with blamed(sections.method.innermost), block.precision.autocast(block.device):
        loss = block.method.learn(_TrialTurn(sample, sections.method.innermost))
    if loss is None and block.timing.reads:
        return
    if loss is None or not _is_number(loss) or loss.requires_grad:
        _refuse(sections.method.innermost, f"learn() returned {_form(loss)}, allowed: the detached loss, float32 []")


def _is_number(loss: object) -> bool:
    return isinstance(loss, Tensor) and loss.shape == () and loss.dtype == torch.float32


def _form(value: object) -> str:
    """Type and shape of a tensor, else the type."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _refuse(part: BaseModel, reason: str) -> NoReturn:
    raise OwnCodeError(part.subject if isinstance(part, Own) else type(part).__name__, reason)
