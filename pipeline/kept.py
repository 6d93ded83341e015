"""The batches of one block on which feedback is still due."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from greedypipe.pipeline.parts import WHOLE, Join, Part, as_it_is
from greedypipe.pipeline.sample import Sample
from greedypipe.pipeline.trunk import Trunk

INPUT, OUTPUT, GRAPH = "input", "output", "graph"
"""What a method may keep of a batch."""


class KeptSamples:
    """A queue of batches, the oldest first.

    Args:
        keeps: What is kept of each: `INPUT`, `OUTPUT`, `GRAPH`.
        lag: Turns until the feedback on a batch comes.
        wants_input_gradient: Whether inputs gather a gradient.
    """

    def __init__(self, keeps: frozenset[str], lag: int, trunk: Trunk, *, wants_input_gradient: bool) -> None:
        self._keeps = keeps
        self._lag = lag
        self._trunk = trunk
        self._wants_input_gradient = wants_input_gradient
        self._samples: deque[Sample] = deque()

    def add(self, fresh: Sample) -> None:
        """Keeps what is wanted of a batch, and lets go of the rest; its graph stays only where it stands on copies."""
        fresh.inner = ()
        if not self._lag:
            return
        fresh.input = fresh.input if self._keeps & {INPUT, GRAPH} else None
        if fresh.weights is None:
            fresh.output = fresh.h.detach() if OUTPUT in self._keeps else None
        self._samples.append(fresh)

    def due_in(self, turn: int) -> Sample | None:
        """Takes out the batch that the feedback of this turn is about; None where that was never seen here."""
        while self._samples and self._samples[0].turn < turn - self._lag:
            self._samples.popleft()
        if self._samples and self._samples[0].turn == turn - self._lag:
            return self._samples.popleft()
        return None

    def state_dict(self, join: Join = as_it_is) -> list[dict[str, Any]]:
        """All that `load_state_dict` needs, of whole batches; tensors that nothing is joined to are references."""
        return [_state_of(sample, join) for sample in self._samples]

    def load_state_dict(self, states: Sequence[dict[str, Any]], part: Part = WHOLE) -> None:
        """Restores this part of the batches that `state_dict` returned; graphs are made again, bit for bit."""
        self._samples = deque(self._restored(state, part) for state in states)

    def _restored(self, state: dict[str, Any], part: Part) -> Sample:
        sample = Sample(
            turn=state["turn"],
            batch_rows=0 if part == WHOLE else len(state["labels"]),
            weights=state["weights"],
            trunk=self._trunk,
            **_with_rows(state, part.of),
        )
        if sample.input is not None and self._wants_input_gradient:
            sample.input = sample.input.detach().requires_grad_()
        if sample.weights is not None:
            sample.weights = {name: weight.requires_grad_() for name, weight in sample.weights.items()}
            sample.output = self._trunk.run_again(sample.x, sample.turn, sample.weights)
        return sample


def _state_of(sample: Sample, join: Join) -> dict[str, Any]:
    has_graph = sample.weights is not None
    rows = {
        "labels": sample.labels,
        "extras": sample.extras,
        "kept": sample.kept,
        "input": None if sample.input is None else sample.input.detach(),
        "output": None if sample.output is None or has_graph else sample.output,
    }
    return {
        **_with_rows(rows, lambda tensor: join(tensor, sample.batch_rows)),
        "turn": sample.turn,
        "weights": {name: weight.detach() for name, weight in sample.weights.items()} if sample.weights else None,
    }


def _with_rows(state: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """What has rows in the state of a batch, each tensor changed."""
    single = {name: state[name] if state[name] is None else change(state[name]) for name in ("labels", "input", "output")}
    return {
        **single,
        **{name: {key: change(one) for key, one in state[name].items()} for name in ("extras", "kept")},
    }
