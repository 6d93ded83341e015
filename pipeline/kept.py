"""The batches of one block on which feedback is still due."""

from collections import deque
from collections.abc import Sequence
from typing import Any

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

    def state_dict(self) -> list[dict[str, Any]]:
        """All that `load_state_dict` needs; tensors are references."""
        return [_state_of(sample) for sample in self._samples]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Restores what `state_dict` returned; graphs are made again, bit for bit."""
        self._samples = deque(self._restored(state) for state in states)

    def _restored(self, state: dict[str, Any]) -> Sample:
        sample = Sample(**state, trunk=self._trunk)
        if sample.input is not None and self._wants_input_gradient:
            sample.input = sample.input.detach().requires_grad_()
        if sample.weights is not None:
            sample.weights = {name: weight.requires_grad_() for name, weight in sample.weights.items()}
            sample.output = self._trunk.run_again(sample.x, sample.turn, sample.weights)
        return sample


def _state_of(sample: Sample) -> dict[str, Any]:
    has_graph = sample.weights is not None
    return {
        "labels": sample.labels,
        "extras": dict(sample.extras),
        "turn": sample.turn,
        "share": sample.share,
        "kept": dict(sample.kept),
        "input": None if sample.input is None else sample.input.detach(),
        "output": None if sample.output is None or has_graph else sample.output,
        "weights": {name: weight.detach() for name, weight in sample.weights.items()} if sample.weights else None,
    }
