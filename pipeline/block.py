"""A block: consecutive layers with their method, optimizer and schedule; the unit of gradient isolation."""

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from greedypipe.pipeline.batch import Batch
from greedypipe.pipeline.codecs import Codec, PlainCodec
from greedypipe.pipeline.execution.eager import Eager
from greedypipe.pipeline.execution.graphed import Graphed
from greedypipe.pipeline.execution.interface import Execution
from greedypipe.pipeline.execution.recorder import Recorder
from greedypipe.pipeline.feedback import NOTHING, Entry, Feedback, Learned, Timing
from greedypipe.pipeline.kept import GRAPH, KeptSamples
from greedypipe.pipeline.method import Method
from greedypipe.pipeline.optimization import Optimizations
from greedypipe.pipeline.parts import WHOLE, Combine, Join, Part, as_it_is
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.sample import Sample, Turn
from greedypipe.pipeline.site import Shapes, Site
from greedypipe.pipeline.trunk import Generator, Trunk


class Block:
    """Consecutive layers that learn by their own method (Belilovsky et al., ICML 2020, Algorithm 1).

    A block knows nothing of processes, links or other blocks. Its dropout is a function of (seed, index, turn).

    Args:
        site: Place of the block in the network, with its layers, on `device`.
        method: How the block learns, on `device`.
        optimizations: Optimizers over the parameters of layers and method, schedules, and step budget.
        precision: Dtype and memory layout.
        seed: Seed of the run.
        sends_rows: Whether what it sends has a row for each sample of a batch.
        codec: What becomes of its activations before the next block sees them; None: nothing.
    """

    def __init__(
        self,
        site: Site,
        method: Method,
        optimizations: Optimizations,
        precision: Precision,
        seed: int,
        device: torch.device,
        sends_rows: bool = True,
        codec: Codec | None = None,
    ) -> None:
        self.site = site
        self.index = site.index
        self.layers = site.layers
        self.method = method
        self.precision = precision
        self.device = device
        self.turn = 0
        """Training batches whose activation the block has computed."""
        self.step = 0
        """Optimizer steps of the layers."""
        self.line: deque[Entry] = deque([NOTHING] * site.timing.delay_before, maxlen=site.timing.delay_before)
        """Entries on the line to the block before that it has not yet taken, if both blocks are at the same turn."""
        self._sends_rows = sends_rows
        self._saved_layers = (*site.layers, site.classifier) if site.classifier else site.layers
        self.codec: Codec = codec or PlainCodec()
        self._generator = Generator(device, seed, site.index)
        self.trunk = Trunk(site.layers, precision, self._generator, device)
        """The layers as one module."""
        self._optimizations = optimizations
        self._fresh: Sample | None = None
        self._learned = 0
        timing, keeps = site.timing, method.keeps
        wants_input_gradient = timing.sends and method.input_gradient
        self._eager = Eager(
            self.trunk,
            method,
            optimizations,
            precision,
            wants_input_gradient=wants_input_gradient,
            has_graph=method.trains_layers and (timing.lag == 0 or method.fresh_graph),
            copies_weights=timing.lag > 0 and GRAPH in keeps,
        )
        self._execution: Execution = self._eager
        self._kept = KeptSamples(keeps, timing.lag, self.trunk, wants_input_gradient=wants_input_gradient)

    @property
    def shapes(self) -> Shapes:
        """Shapes of the input and of the activation."""
        return self.site.shapes

    @property
    def total_steps(self) -> int:
        """Step budget of the run."""
        return self._optimizations.main.total_steps

    @property
    def timing(self) -> Timing:
        """When it reads and sends feedback."""
        return self.site.timing

    @property
    def relays(self) -> bool:
        """Whether what it sends depends on what it has read, so that it sends in `drain_turns` too."""
        return self.method.relays

    @property
    def drain_turns(self) -> int:
        """Turns behind the end of the stream in which its layers learn from the feedback that is left."""
        return self.timing.lag if self.method.drains else 0

    @property
    def finished(self) -> bool:
        """Whether the step budget is used up: the block passes activations through, with frozen weights."""
        return self.turn >= self.total_steps

    @property
    def num_parameters(self) -> int:
        """Parameters of the layers, without the method's."""
        return sum(parameter.numel() for parameter in self.trunk.module.parameters())

    @property
    def num_head_parameters(self) -> int:
        """Parameters of the method: head and, where it has one, decoder or projection."""
        return sum(parameter.numel() for parameter in self.method.parameters())

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return self._optimizations.main.learning_rate

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """Computes the activation of one training batch and keeps it, with its graph, for `learn`.

        Args:
            x: Input [N, *shapes.input] on `device`; not modified, and no gradient ever flows into it.
            batch: Labels and further tensors of the same rows; must stay unchanged until `learn` returns.

        Returns:
            The activation [N, *shapes.output] in the precision's dtype and layout, detached, as the codec gives it out:
            computed with the weights before this step's update, in evaluation mode once the block has finished. It must be
            neither modified nor kept beyond `learn`.
        """
        if self.finished:
            return self.pass_through(x)
        self._set_training(True)
        self._generator.sow("forward", self.turn)
        self._fresh = fresh = self._execution.forward(x, batch, self.turn)
        self.turn += 1
        return self.codec.give_out(fresh.h.detach(), learns=True)

    def learn(self, feedback: Feedback = NOTHING, *, drains: bool = False) -> Learned:
        """Has the method learn from the batch of the last `forward`, and makes one optimizer step.

        Does not synchronise with the device.

        Args:
            feedback: What the line behind the block has given for this turn. A block that keeps batches keeps those of
                its inputs, labels and extras that the method wants, so they must stay as they are.
            drains: There is no fresh batch: the stream has ended, and feedback on earlier batches is left.

        Returns:
            The loss, and what goes to the block before; nothing where that batch was passed through.
        """
        fresh, self._fresh = self._fresh, None
        if fresh is None and not drains:
            assert self.finished, "learn() without forward()"
            return Learned(None, NOTHING)
        self._set_training(True)
        number = fresh.turn if fresh else self._learned
        self._generator.sow("learn", number)
        turn = Turn(number, fresh, self._old(fresh, feedback, number), feedback)
        loss, has_stepped = self._execution.learn(turn)
        if fresh:
            self._kept.add(fresh)
        self._learned = number + 1
        self.step += has_stepped
        return Learned(loss, self._sent(turn))

    @torch.no_grad()
    def pass_through(self, x: Tensor) -> Tensor:
        """The activation in evaluation mode, without learning; changes no state."""
        self._set_training(False)
        return self.codec.give_out(self.trunk.run(x))

    @torch.no_grad()
    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Activation, and the head's outputs [N, classes] (fp32), in evaluation mode; changes no state."""
        self._set_training(False)
        activation = self.trunk.run(x)
        with self.precision.autocast(self.device):
            outputs = self.method.head(activation).float()
        return self.codec.give_out(activation), outputs

    def compile(self) -> None:
        """Compiles layers and method with torch.compile, each as a whole, at their first call.

        Results differ from eager ones in the last bits, as kernels are fused; they do not depend on hosting.
        """
        # With dynamic shapes the second block of a process would get other kernels than it gets in a process of its own.
        self.trunk.module.compile(dynamic=False)
        self.method.compile(dynamic=False)

    def record(self, needs: Collection[str], make_recorder: Callable[[], Recorder]) -> None:
        """Has its turns recorded and done again as two graphs (pipeline.execution.graphed), with the same bits.

        Args:
            needs: Names of what its method reads of a batch besides its input.
            make_recorder: Makes what records.
        """
        self._execution = Graphed(self._eager, needs, make_recorder)

    def become_replica(self, number: int, combine: Combine) -> None:
        """Makes this block replica `number` of several: `combine` merges their gradients before every step, and dropout
        differs between them."""
        self._execution.combine = combine
        self._generator.become_replica(number)

    def statistics(self) -> list[Tensor]:
        """Buffers of layers and method, such as the running statistics of batch normalisation."""
        return [*self.trunk.module.buffers(), *self.method.buffers()]

    def state_dict(self, join: Join = as_it_is) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to continue bit-exactly; tensors are references, not copies.

        `layers` uses the ordinary network's parameter names, so that it is independent of the partition. `parameters`
        names the optimizer's numbered parameters; those of the method begin with `method.`.

        Args:
            join: Called, in a fixed order, with everything that has the rows of a batch, to make it that of whole batches.
        """
        return {
            "index": self.index,
            "turn": self.turn,
            "step": self.step,
            "learned": self._learned,
            "last_layer": self.layers[-1].name,
            "layers": self.layer_state(),
            "method": self.method.state_dict(),
            "parameters": self._parameter_names(),
            **self._optimizations.state_dict(),
            "kept": self._kept.state_dict(join),
            "line": [entry.state_dict(join if self._sends_rows else as_it_is) for entry in self.line],
            "codec": self.codec.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], part: Part = WHOLE) -> None:
        """Restores the `state_dict` of a block with the same layers and method; takes ownership of its tensors.

        Args:
            part: What of every batch this block has, where other replicas have the rest.
        """
        for layer in self._saved_layers:
            layer.module.load_state_dict({key: state["layers"][layer.qualified(key)] for key in layer.module.state_dict()})
        self.method.load_state_dict(state["method"])
        self._optimizations.load_state_dict(state)
        self.turn, self.step, self._learned = state["turn"], state["step"], state["learned"]
        self._set_training(True)
        self._kept.load_state_dict(state["kept"], part)
        sent = part if self._sends_rows else WHOLE
        self.line = deque((Entry.restored(entry, sent) for entry in state["line"]), maxlen=self.timing.delay_before)
        self.codec.load_state_dict(state.get("codec", {}))
        self._execution.restart()

    def layer_state(self) -> dict[str, Tensor]:
        """Parameters and statistics of the layers, and of the classifier, under the ordinary network's names."""
        return {
            layer.qualified(key): value for layer in self._saved_layers for key, value in layer.module.state_dict().items()
        }

    def _old(self, fresh: Sample | None, feedback: Feedback, number: int) -> Sample | None:
        """The batch that this turn's feedback is about."""
        if self.timing.lag == 0:
            return fresh if feedback else None
        return self._kept.due_in(number)

    def _sent(self, turn: Turn) -> Entry:
        """What goes to the block before, in the layout that it has after a link too."""
        if not self.timing.sends:
            return NOTHING
        about = turn.old if self.timing.passes_on else turn.fresh
        tensors = {name: self.precision.canonical(tensor.detach()) for name, tensor in turn.back.items()}
        entry = Entry(tensors, about.batch_rows if about and self._sends_rows else 0)
        self.line.append(entry)
        return entry

    def _set_training(self, mode: bool) -> None:
        if self.trunk.module.training != mode:
            self.trunk.module.train(mode)
            self.method.train(mode)

    def _parameter_names(self) -> list[str]:
        """Names of the trained parameters, in the optimizer's order."""
        names = {id(parameter): f"method.{key}" for key, parameter in self.method.named_parameters()}
        for layer in self.layers:
            names |= {id(parameter): layer.qualified(key) for key, parameter in layer.module.named_parameters()}
        return [names[id(parameter)] for parameter in self._optimizations.main.parameters]
