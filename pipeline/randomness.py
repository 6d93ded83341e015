"""Seeds as pure functions of what is being randomised, never of rank, timing or hosting."""

import hashlib

import torch

SEEDS = 2**63
"""How many seeds there are: from 0, all as likely."""


def derive_seed(*parts: int | str) -> int:
    """Maps e.g. ``(seed, "dropout", block_index, step)`` to a 63-bit seed.

    The same parts give the same seed in every process and Python version (``hash()`` would not: it is salted).
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_global_generator(device: torch.device, seed: int) -> None:
    """Seeds the default generator of `device`, the one that dropout and initialisation draw from. Does not wait for it.

    ``torch.manual_seed`` would seed every device and costs about 0.2 ms, too much for a step of one millisecond;
    ``torch.cuda.manual_seed`` that of the current device, whichever that is.

    Args:
        device: The CPU; or CUDA, with its index, in use already. Not yet run on a GPU.
    """
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
