"""How two ends of a gloo link find each other, or do not."""


import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore

from tests.conformance.implementations import (
    ACTIVATION,
    LABELS,
    LAYOUT,
    MAX_ROWS,
    SHORT_S,
    TIMEOUT_S,
)
from workers.encoding import TensorSpec
from workers.links.process_group import RECEIVER, SENDER, connect_gloo
from workers.messages import Kind, MessageLayout

OTHER_LAYOUTS = {
    "rows": MessageLayout(MAX_ROWS + 1, LAYOUT.specs),
    "fewer_tensors": MessageLayout(MAX_ROWS, {Kind.TRAIN: (LABELS, ACTIVATION)}),
    "longer": MessageLayout(MAX_ROWS, {Kind.TRAIN: (*LAYOUT.specs[Kind.TRAIN], TensorSpec("more", (9,), torch.int8))}),
}


@pytest.mark.parametrize("other", OTHER_LAYOUTS.values(), ids=OTHER_LAYOUTS)
@pytest.mark.parametrize("rank", [SENDER, RECEIVER])
def test_ends_of_gloo_with_different_layouts_refuse_to_connect(other: MessageLayout, rank: int) -> None:
    store = HashStore()
    theirs = ThreadPoolExecutor(1).submit(connect_gloo, store, "link0", 1 - rank, other, peer="stage 4", timeout_s=TIMEOUT_S)
    with pytest.raises(ValueError, match="stage 3 has another message layout"):
        connect_gloo(store, "link0", rank, LAYOUT, peer="stage 3", timeout_s=TIMEOUT_S)
    with pytest.raises(ValueError, match="stage 4 has another message layout"):
        theirs.result(TIMEOUT_S)


@pytest.mark.parametrize("rank", [SENDER, RECEIVER])
def test_an_end_of_gloo_whose_peer_does_not_come_gives_up_at_the_deadline(rank: int) -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"waited 0.3 s to connect to stage 5"):
        connect_gloo(HashStore(), "link0", rank, LAYOUT, peer="stage 5", timeout_s=SHORT_S)
    assert 0.9 * SHORT_S < time.monotonic() - started < 10 * SHORT_S
