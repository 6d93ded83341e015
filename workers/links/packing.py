"""Messages into slots: what every sender does first."""

import torch
from torch import Tensor

from workers.links.slots import SlotPool
from workers.messages import Message, MessageLayout


def new_slot(layout: MessageLayout) -> Tensor:
    """Host memory for the largest message; page-locked where there is CUDA, so that copies to the device are fast."""
    return torch.zeros(layout.slot_bytes, dtype=torch.uint8, pin_memory=torch.cuda.is_available())


def pack_into_free_slot(
    pool: SlotPool[Tensor], layout: MessageLayout, message: Message, *, timeout_s: float, peer: str
) -> tuple[Tensor, int]:
    """Waits for a free slot and copies the message into it; returns the slot and the bytes used.

    Raises:
        TimeoutError: No slot became free within `timeout_s`; names `peer`.
        ValueError: The message does not fit the layout; no slot is taken then.
    """
    layout.check(message)
    try:
        slot = pool.acquire(timeout_s)
    except TimeoutError:
        raise TimeoutError(f"waited {timeout_s:g} s for room at {peer}, batch_id {message.batch_id}") from None
    return slot, layout.pack(message, slot)
