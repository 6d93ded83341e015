"""The tensor work of a turn is recorded twice, forward and learn, and done again as two graphs: Python starts two things.

Two, since the activation is sent in between, and since each draws from a generator that is seeded for it.

| what                    | how it gets into a graph                                                     |
|-------------------------|------------------------------------------------------------------------------|
| input, labels, extras   | copied into tensors of this object before each turn                          |
| seed                    | set by the block before each graph; a graph reads it when it is replayed     |
| learning rate           | a tensor, filled before each turn (pipeline.optimization)                    |
| weights, optimizer state| always the same memory; where it is replaced, everything is recorded anew    |
| statistics              | written by the graph                                                         |

The first turns are eager: they load kernels, and make the optimizers' state. So are batches of another size, and turns
without a fresh batch. The bits are those of eager turns on the same device with the same kernels.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from greedypipe.pipeline.batch import LABELS, Batch
from greedypipe.pipeline.execution.eager import Eager
from greedypipe.pipeline.execution.interface import Done
from greedypipe.pipeline.execution.recorder import Recorder
from greedypipe.pipeline.parts import Combine
from greedypipe.pipeline.sample import Sample, Turn

WARM_UP = 3
"""Eager turns with batches of one size before it is recorded."""
INPUT = "input"
Form = tuple[object, ...]


class NotRecorded(RuntimeError):
    """The work cannot be recorded; one line."""


class Graphed:
    """A block's turns as two graphs.

    Args:
        eager: The same, eagerly.
        needs: Names of what the method reads of a batch besides its input.
        make_recorder: Makes what records.
    """

    def __init__(self, eager: Eager, needs: Collection[str], make_recorder: Callable[[], Recorder]) -> None:
        self._eager = eager
        self._needs = frozenset(needs) - {LABELS}
        self._make_recorder = make_recorder
        self.restart()

    @property
    def combine(self) -> Combine:
        """Replicas do not go with graphs: whoever merges gradients waits for others."""
        return self._eager.combine

    @combine.setter
    def combine(self, combine: Combine) -> None:
        raise ValueError("training.graphs: got on with several replicas, allowed: off")

    def restart(self) -> None:
        """Forgets the graphs: the next turns are eager, then they are recorded anew."""
        self._recorder = self._make_recorder()
        self._seen: Counter[Form] = Counter()
        self._form: Form | None = None
        self._given: Mapping[str, Tensor] = {}
        self._sample: Sample | None = None
        self._loss: Tensor | None = None
        self._steps: tuple[bool, ...] = ()
        self._forward_again: Callable[[], None] | None = None
        self._learn_again: Callable[[], None] | None = None

    def forward(self, x: Tensor, batch: Batch, turn: int) -> Sample:
        """See `Execution.forward`; as a graph, its tensors are always the same ones."""
        given = self._tensors_of(x, batch)
        if not self._takes(given):
            return self._eager.forward(x, batch, turn)
        if self._forward_again is None:
            self._given = {name: tensor.clone() for name, tensor in given.items()}
            self._forward_again = self._record(self._forward)
        else:
            # Not in the turn that is recorded: autograd would notice that what it has kept for `learn` was written.
            for name, tensor in given.items():
                self._given[name].copy_(tensor, non_blocking=True)
        self._forward_again()
        assert self._sample is not None
        self._sample.turn = turn
        return self._sample

    def learn(self, turn: Turn) -> Done:
        """See `Execution.learn`; as a graph where the batch is that of the last graph of `forward`."""
        if turn.fresh is None or turn.fresh is not self._sample:
            return self._eager.learn(turn)
        optimizations = self._eager.optimizations
        optimizations.refresh_rates()
        if self._learn_again is None:
            self._learn_again = self._record(self._learn)
        self._learn_again()
        return Done(self._loss, optimizations.count(self._steps))

    def _tensors_of(self, x: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {INPUT: x, LABELS: batch.labels, **{name: batch.extras[name] for name in sorted(self._needs)}}

    def _takes(self, given: Mapping[str, Tensor]) -> bool:
        form: Form = tuple((name, tensor.shape, tensor.dtype, tensor.stride()) for name, tensor in given.items())
        if self._form is None:
            self._seen[form] += 1
            self._form = form if self._seen[form] > WARM_UP else None
        return form == self._form

    def _record(self, work: Callable[[], None]) -> Callable[[], None]:
        try:
            return self._recorder.record(work)
        except RuntimeError as error:
            raise NotRecorded(
                f"training.graphs: got on, but the block's work cannot be recorded: {_cause(error)}"
            ) from error

    def _forward(self) -> None:
        extras = {name: tensor for name, tensor in self._given.items() if name not in (INPUT, LABELS)}
        self._sample = self._eager.forward(self._given[INPUT], Batch(0, self._given[LABELS], extras), 0)

    def _learn(self) -> None:
        assert self._sample is not None
        self._loss = self._eager.gradients(Turn(0, self._sample))
        self._steps = self._eager.optimizations.apply()


def _cause(error: BaseException) -> str:
    """The first line of what was raised first: the end of a recording that has failed raises once more."""
    while error.__context__ is not None:
        error = error.__context__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
