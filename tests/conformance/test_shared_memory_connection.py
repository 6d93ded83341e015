"""How two ends of a shared-memory link find each other, and what is left of it when one of them is killed."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch.distributed import FileStore, HashStore

from greedypipe.workers.links.messages import Kind, MessageLayout
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.shared_memory import attach_shared_memory, serve_shared_memory
from tests.conformance.implementations import ACTIVATION, LABELS, LAYOUT, MAX_ROWS, SHORT_S, TIMEOUT_S
from tests.conformance.test_links import assert_same, message

OTHER = MessageLayout(MAX_ROWS, {Kind.TRAIN: (LABELS, ACTIVATION)})


def test_ends_with_different_layouts_refuse_to_connect() -> None:
    store = HashStore()
    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(serve_shared_memory, store, "link0", OTHER, slots=2, patience=Patience("stage 3", TIMEOUT_S))
        with pytest.raises(ValueError, match="stage 4 has another message layout"):
            attach_shared_memory(store, "link0", LAYOUT, patience=Patience("stage 4", TIMEOUT_S))
        with pytest.raises(ValueError, match="stage 3 has another message layout"):
            serving.result(TIMEOUT_S)


def test_an_end_whose_peer_does_not_come_gives_up_at_the_deadline() -> None:
    with pytest.raises(ConnectionError, match=r"waited 0.3 s to connect to stage 5"):
        attach_shared_memory(HashStore(), "link0", LAYOUT, patience=Patience("stage 5", SHORT_S))
    with pytest.raises(ConnectionError, match=r"waited 0.3 s to connect to stage 5"):
        serve_shared_memory(HashStore(), "link0", LAYOUT, slots=2, patience=Patience("stage 5", SHORT_S))


def send_from_a_process(store: Path, sent: Connection) -> None:
    torch.set_num_threads(1)
    sender = attach_shared_memory(FileStore(str(store), 2), "link0", LAYOUT, patience=Patience("stage 1", TIMEOUT_S))
    for batch_id in range(2):
        sender.send(message(batch_id=batch_id))
    sent.send(len(sender._slots))
    signal.pause()


def test_a_killed_sender_leaves_what_it_sent_and_nothing_else(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=send_from_a_process, args=(tmp_path / "store", theirs))
    process.start()
    store = FileStore(str(tmp_path / "store"), 2)
    receiver = serve_shared_memory(store, "link0", LAYOUT, slots=3, patience=Patience("stage 0", TIMEOUT_S))
    assert ours.poll(TIMEOUT_S) and ours.recv() == 3
    process.kill()
    process.join()
    for batch_id in range(2):
        received = receiver.receive()
        assert_same(received.message, message(batch_id=batch_id))
        received.release()
    with pytest.raises(ConnectionError, match="lost stage 0"):
        receiver.receive()
    receiver.close()
    assert set(os.listdir("/dev/shm")) == before


def test_a_receiver_that_is_lost_with_messages_unread_is_told_apart_from_one_that_has_read_them() -> None:
    for reads in (True, False):
        store = HashStore()
        with ThreadPoolExecutor(1) as thread:
            serving = thread.submit(serve_shared_memory, store, "link0", LAYOUT, slots=2, patience=Patience("a", TIMEOUT_S))
            sender = attach_shared_memory(store, "link0", LAYOUT, patience=Patience("stage 1", TIMEOUT_S))
        receiver = serving.result()
        sender.send(message())
        if reads:
            receiver.receive().release()
        receiver.close()
        if reads:
            sender.close()
        else:
            with pytest.raises(ConnectionError, match="lost stage 1"):
                sender.close()


def test_hundreds_of_messages_that_nobody_has_read_yet_hold_back_nobody() -> None:
    """More than the socket has room for: what it cannot tell at once is told later, and no release is ever lost."""
    store, count = HashStore(), 1000
    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(serve_shared_memory, store, "link0", OTHER, slots=count, patience=Patience("a", TIMEOUT_S))
        sender = attach_shared_memory(store, "link0", OTHER, patience=Patience("stage 1", TIMEOUT_S))
        receiver = serving.result()
        for _ in range(3):
            sending = thread.submit(lambda: [sender.send(message(Kind.END, number)) for number in range(count)])
            held = [receiver.receive() for _ in range(count)]
            sending.result()
            assert [received.message.batch_id for received in held] == list(range(count))
            for received in held:
                received.release()
    sender.close()
    receiver.close()
