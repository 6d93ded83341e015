"""The device that a thread uses where it names none, and the wait for it."""

import os
from collections.abc import Callable
from functools import partial

import torch


def make_current(device: torch.device) -> None:
    """Makes a GPU the current one of the calling thread, and starts CUDA there; nothing changes for the CPU.

    To be called first in a stage's process and in each of its threads that touch CUDA: a thread begins with GPU 0 whatever
    its maker had, and what it allocates, page-locks or records without naming a device would make a context there. Not yet
    run on a GPU.

    Args:
        device: The stage's; CUDA with its index.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)


def compute_repeatably() -> None:
    """Has this process compute nothing on a GPU but what torch repeats bit for bit; anything else raises RuntimeError there.

    To be called before CUDA is started: cuBLAS then looks for how much memory it may use on each stream. Equal bits need the
    same model of GPU, the same versions and batches of the same rows as well. Not yet run on a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def waiting_for(device: torch.device) -> Callable[[], None]:
    """What blocks until a device has done everything that this process has put on it; for measurements and deliberate
    trouble. Nothing on the CPU, whose work is done when a call returns."""
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
