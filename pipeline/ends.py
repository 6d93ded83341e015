"""The last blocks of methods with feedback: they learn by the task's loss, and send what the others need."""

from typing import Any

import torch
from torch import Tensor

from greedypipe.pipeline.feedback import Back
from greedypipe.pipeline.method import Method, TaskLoss, Turn
from greedypipe.pipeline.site import Site

GRADIENT, OUTPUTS, LOSSES = "gradient", "outputs", "losses"


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
        with torch.autocast(outputs.device.type, enabled=False):
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
