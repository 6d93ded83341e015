"""The last blocks of methods with feedback: they learn by the task's loss, and send what the others need."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from greedypipe.pipeline.feedback import Back, Feedback
from greedypipe.pipeline.method import Method, TaskLoss, Turn
from greedypipe.pipeline.precision import without_autocast
from greedypipe.pipeline.site import Site

GRADIENT, OUTPUTS, LOSSES, PARAMETERS = "gradient", "outputs", "losses", "parameters"


def gradient_of_input(site: Site) -> tuple[Back, ...]:
    """A gradient of the block's input, [N, *shapes.input], in the dtype of activations."""
    return (Back(GRADIENT, site.shapes.input, is_gradient=True),)


def gradient_of_outputs(site: Site) -> tuple[Back, ...]:
    """The gradient of the last block's outputs, [N, classes], in fp32."""
    return (Back(OUTPUTS, (site.task.outputs,), torch.float32, is_gradient=True),)


class SendsInputGradient(TaskLoss):
    """Sends the gradient of its input."""

    input_gradient = True

    def learn(self, turn: Turn) -> Tensor:
        assert turn.fresh is not None
        loss = super().learn(turn)
        if (gradient := turn.fresh.take_input_gradient()) is not None:
            turn.back[GRADIENT] = gradient
        return loss


class SendsOutputGradient(TaskLoss):
    """Sends the gradient of its outputs."""

    def learn(self, turn: Turn) -> Tensor:
        assert turn.fresh is not None
        outputs = self.head(turn.fresh.h).float()
        loss = self.task.loss(outputs, turn.fresh.labels)
        with without_autocast(outputs.device):
            (gradient,) = torch.autograd.grad(loss, outputs, retain_graph=True)
            outputs.backward(gradient)
        turn.back[OUTPUTS] = gradient
        return loss.detach()


class SendsLosses(TaskLoss):
    """Sends the loss of every sample."""

    def learn(self, turn: Turn) -> Tensor:
        assert turn.fresh is not None
        losses = self.task.loss(self.head(turn.fresh.h), turn.fresh.labels, reduction="none")
        loss = losses.mean()
        turn.backward(loss)
        turn.back[LOSSES] = losses.detach()
        return loss.detach()


class EndsWithInputGradient(Method):
    """The base of methods that live on gradients of the next block's input."""

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> Method:
        return SendsInputGradient(site)

    @classmethod
    def sends(cls, site: Site) -> tuple[Back, ...]:
        return gradient_of_input(site)


class EndsWithOutputGradient(Method):
    """The base of methods that live on the gradient of the last block's outputs."""

    @classmethod
    def at_end(cls, site: Site, **keys: Any) -> Method:
        return SendsOutputGradient(site)

    @classmethod
    def sends(cls, site: Site) -> tuple[Back, ...]:
        return gradient_of_outputs(site)


class SentParameters:
    """Parameters of modules as they go to the block before, every `every` turns, in one row of fp32."""

    def __init__(self, modules: Iterable[nn.Module], every: int = 1) -> None:
        self._parameters = [parameter for module in modules for parameter in module.parameters()]
        self._every = every

    def back(self) -> tuple[Back, ...]:
        """What `Method.sends` says of them."""
        size = sum(parameter.numel() for parameter in self._parameters)
        return (Back(PARAMETERS, (size,), torch.float32, per_row=False),)

    def put_into(self, turn: Turn) -> None:
        """Puts a copy of them into what goes back in this turn, if one is due."""
        if turn.number % self._every == 0:
            turn.back[PARAMETERS] = torch.cat([one.detach().reshape(-1) for one in self._parameters])[None]


class SendsParameters(TaskLoss):
    """The last block: sends parameters of its own."""

    def __init__(self, site: Site, sent: SentParameters) -> None:
        super().__init__(site)
        self._sent = sent

    def learn(self, turn: Turn) -> Tensor:
        self._sent.put_into(turn)
        return super().learn(turn)


def parts_for(parameters: Sequence[nn.Parameter], feedback: Feedback) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each parameter with what has come for it, in its shape."""
    parts = feedback[PARAMETERS][0].split([parameter.numel() for parameter in parameters])
    return ((parameter, part.view_as(parameter)) for parameter, part in zip(parameters, parts, strict=True))
