"""How two ends of a gloo link find each other, or do not."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore

from greedypipe.pipeline.batch import TensorSpec
from greedypipe.workers.links.gloo import RECEIVER, SENDER, connect_gloo
from greedypipe.workers.links.messages import Kind, MessageLayout
from greedypipe.workers.links.patience import GivenUp, Patience
from tests.conformance.calls import Call
from tests.conformance.implementations import (
    ACTIVATION,
    LABELS,
    LAYOUT,
    MAX_ROWS,
    SHORT_S,
    TIMEOUT_S,
    gloo_wires,
)

OTHER_LAYOUTS = {
    "rows": MessageLayout(MAX_ROWS + 1, LAYOUT.specs),
    "fewer_tensors": MessageLayout(MAX_ROWS, {Kind.TRAIN: (LABELS, ACTIVATION)}),
    "longer": MessageLayout(MAX_ROWS, {Kind.TRAIN: (*LAYOUT.specs[Kind.TRAIN], TensorSpec("more", (9,), torch.int8))}),
}


@pytest.mark.parametrize("other", OTHER_LAYOUTS.values(), ids=OTHER_LAYOUTS)
@pytest.mark.parametrize("rank", [SENDER, RECEIVER])
def test_ends_of_gloo_with_different_layouts_refuse_to_connect(other: MessageLayout, rank: int) -> None:
    store = HashStore()
    theirs = ThreadPoolExecutor(1).submit(
        connect_gloo, store, "link0", 1 - rank, other, patience=Patience("stage 4", TIMEOUT_S), deadline_s=TIMEOUT_S
    )
    with pytest.raises(ValueError, match="stage 3 has another message layout"):
        connect_gloo(store, "link0", rank, LAYOUT, patience=Patience("stage 3", TIMEOUT_S), deadline_s=TIMEOUT_S)
    with pytest.raises(ValueError, match="stage 4 has another message layout"):
        theirs.result(TIMEOUT_S)


@pytest.mark.parametrize("rank", [SENDER, RECEIVER])
def test_an_end_of_gloo_whose_peer_does_not_come_gives_up_at_the_deadline(rank: int) -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"waited 0.3 s to connect to stage 5"):
        connect_gloo(HashStore(), "link0", rank, LAYOUT, patience=Patience("stage 5", SHORT_S), deadline_s=TIMEOUT_S)
    assert 0.9 * SHORT_S < time.monotonic() - started < 10 * SHORT_S


@pytest.mark.parametrize("rank", [SENDER, RECEIVER])
def test_the_wait_for_a_peer_can_be_given_up(rank: int) -> None:
    over = threading.Event()
    patience = Patience("stage 5", TIMEOUT_S, over.is_set)
    waiting = Call(lambda: connect_gloo(HashStore(), "link0", rank, LAYOUT, patience=patience, deadline_s=TIMEOUT_S))
    over.set()
    with pytest.raises(GivenUp, match="stage 5"):
        waiting.result()


def test_an_end_that_is_closed_while_it_waits_goes_when_the_other_one_does() -> None:
    sending, receiving = gloo_wires()
    memory = torch.zeros(8, dtype=torch.uint8)
    waiting = Call(lambda: receiving.receive(memory))
    assert waiting.waits()
    receiving.close()
    assert waiting.waits(), "gloo cannot be interrupted"
    sending.close()
    with pytest.raises(ConnectionError, match="lost stage 0"):
        waiting.result()
    for wire, name in ((sending, "stage 1"), (receiving, "stage 0")):
        with pytest.raises(ConnectionError, match=f"link to {name} was closed here"):
            wire.receive(memory)
        wire.close()
