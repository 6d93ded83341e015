"""A stand-in for CUDA graphs on the CPU: work is recorded operation by operation, and done again without Python.

As with a graph, recording does nothing and draws nothing, only tensors and numbers of that time are in the record, results
land in the memory of the first time, and reading a number back is forbidden.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

READS = torch.ops.aten._local_scalar_dense.default


class Tape:
    """A recorder (pipeline.execution.recorder) of everything that torch dispatches."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records what `work` computes; all tensors that were there before keep what they hold."""
        recording, drawn = _Recording(), torch.get_rng_state()
        with recording:
            work()
        recording.undo()
        torch.set_rng_state(drawn)
        return recording.play


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._made: set[int] = set()
        self._before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        if function is READS:
            raise RuntimeError("operation not permitted when stream is capturing")
        if function.namespace == "profiler":
            return function(*arguments, **(keywords or {}))
        # Not only what its schema says that it writes: batch normalisation does not say so of its statistics.
        for tensor in _tensors((arguments, keywords)):
            if _memory(tensor) not in self._made:
                self._made.add(_memory(tensor))
                self._before.append((tensor, tensor.detach().clone()))
        result = function(*arguments, **(keywords or {}))
        self._made |= {_memory(tensor) for tensor in _tensors(result)}
        self._calls.append((function, arguments, keywords or {}, result))
        return result

    def undo(self) -> None:
        """Gives tensors from outside back what they held."""
        for tensor, held in self._before:
            tensor.data.copy_(held)

    def play(self) -> None:
        """Does everything once more."""
        with torch.no_grad():
            for function, arguments, keywords, result in self._calls:
                again = function(*_bare(arguments), **_bare(keywords))
                for old, new in zip(_tensors(result), _tensors(again), strict=True):
                    if _memory(old) != _memory(new):  # a view, and what is written in place, is there already
                        old.data.copy_(new)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _bare(value: Any) -> Any:
    """Without the counters by which autograd notices that what it has kept was written."""
    return tree_map(lambda leaf: leaf.data if isinstance(leaf, Tensor) else leaf, value)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
