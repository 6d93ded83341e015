"""What records the work of a device, to do it again without Python: CUDA graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch


class Recorder(Protocol):
    """Records pieces of work that are done again in the order in which they were recorded."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records what `work` puts on the device, which is not done yet; what it leaves in Python stays.

        The default generator of the device must have been seeded since it was last drawn from, and is so again.

        Returns:
            Does it once more, on the same memory and without Python; returns at once.

        Raises:
            RuntimeError: It cannot be recorded, e.g. as it reads a number back.
        """
        ...


class CudaRecorder:
    """Records into CUDA graphs with a memory of their own. Not yet run on a GPU.

    The current stream must not be the default one, on which CUDA records nothing.
    """

    def __init__(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Recorder.record`. Waits for the device, once."""
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on asking events and copying meanwhile: those of links do.
        with torch.cuda.graph(graph, pool=self._pool, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            work()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.manual_seed(generator.initial_seed())
        return graph.replay


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """A stream of its own for what this thread does on a GPU in the body; nothing changes on a CPU. Not yet run on a GPU.

    Work before it is waited for, and work behind it waits, on the device.
    """
    if device.type != "cuda":
        yield
        return
    around, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    own.wait_stream(around)
    with torch.cuda.stream(own):
        yield
    around.wait_stream(own)
