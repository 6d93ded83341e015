"""The device that a thread uses where it names none."""

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
