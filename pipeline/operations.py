"""Counting what is computed."""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and matrix products of `work`, forward and backward, by torch's
    formulas; a multiply-add is two. Blocks for as long as `work` takes."""
    counter = _Counter()
    with counter:
        work()
    return counter.total


class _Counter(TorchDispatchMode):
    """Adds up operations. Unlike torch's FlopCounterMode it hooks into no module, which `autograd.grad` does not allow."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        if count := flop_registry.get(function.overloadpacket):
            self.total += int(count(*arguments, **(keywords or {}), out_val=result))
        return result
