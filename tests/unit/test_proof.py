"""What turns strangers away from a link."""

import multiprocessing
import os
import re
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import pytest
from torch.distributed import HashStore, PrefixStore, Store

from greedypipe.workers.links import proof
from greedypipe.workers.links.gloo import RECEIVER, SENDER, connect_gloo
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.proof import SECRET_BYTES, Proof, Stranger, check_secret, check_user
from greedypipe.workers.links.shared_memory import attach_shared_memory, serve_shared_memory
from tests.conformance.implementations import LAYOUT, TIMEOUT_S

PATIENCE = Patience("stage 1", TIMEOUT_S)


def test_both_ends_find_the_same_secrets_and_they_differ_between_links() -> None:
    store = HashStore()
    offered = Proof.offer(PrefixStore("a", store))
    assert Proof.find(PrefixStore("a", store), PATIENCE) == offered
    assert Proof.offer(PrefixStore("b", store)) != offered
    assert len(offered.sender) == len(offered.receiver) == SECRET_BYTES and offered.sender != offered.receiver


@pytest.mark.parametrize("shown", [b"", b"x" * SECRET_BYTES])
def test_another_secret_is_refused_and_so_is_a_store_without_one(shown: bytes) -> None:
    with pytest.raises(Stranger, match="in the place of stage 1 does not belong to this run"):
        check_secret(shown, b"y" * SECRET_BYTES, "stage 1")
    store = HashStore()
    store.set("proof", "no secret")
    with pytest.raises(Stranger):
        check_secret(shown, Proof.find(store, PATIENCE).sender, "stage 1")


def test_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = socket.socketpair()
    check_user(here, "stage 1")
    monkeypatch.setattr(proof.os, "geteuid", lambda: 12345)
    with pytest.raises(Stranger, match=r"in the place of stage 1 belongs to user \d+"):
        check_user(here, "stage 1")
    here.close(), there.close()


def address_of(store: Store) -> str:
    return PATIENCE.read(PrefixStore("link0", store), "address").decode()


@pytest.mark.parametrize("says", [b"x" * SECRET_BYTES, struct.pack("=qi", LAYOUT.code, 2)], ids=["guess", "hangs up"])
def test_a_stranger_at_the_address_gets_nothing_and_the_sender_connects_after_it(says: bytes) -> None:
    store = HashStore()
    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(serve_shared_memory, store, "link0", LAYOUT, slots=2, patience=PATIENCE)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
            stranger.connect(address_of(store))
            stranger.sendall(says)
            stranger.shutdown(socket.SHUT_WR)
            data, files, _, _ = socket.recv_fds(stranger, 100, 1)
            assert (data, files) == (b"", [])
        sender = attach_shared_memory(store, "link0", LAYOUT, patience=PATIENCE)
        receiver = serving.result(TIMEOUT_S)
    sender.abandon(), receiver.close()


def test_a_listener_that_does_not_know_the_secret_is_left() -> None:
    store = HashStore()
    Proof.offer(PrefixStore("link0", store))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as impostor, ThreadPoolExecutor(1) as thread:
        impostor.bind("")
        impostor.listen(1)
        PrefixStore("link0", store).set("address", impostor.getsockname().decode())
        attaching = thread.submit(attach_shared_memory, store, "link0", LAYOUT, patience=PATIENCE)
        connection, _ = impostor.accept()
        connection.sendall(b"x" * 28)
        with pytest.raises(ConnectionError, match=r"lost stage 1 while connecting: .*does not belong to this run"):
            attaching.result(TIMEOUT_S)
        connection.close()


def test_an_end_of_gloo_that_does_not_know_the_secret_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proof, "find", lambda store, patience: Proof(b"x" * SECRET_BYTES, b"y" * SECRET_BYTES))
    store = HashStore()
    with ThreadPoolExecutor(2) as threads:
        ends = [
            threads.submit(connect_gloo, store, "link0", rank, LAYOUT, patience=PATIENCE, deadline_s=TIMEOUT_S)
            for rank in (SENDER, RECEIVER)
        ]
        errors = [end.exception(TIMEOUT_S) for end in ends]
    assert all(isinstance(error, ConnectionError) for error in errors)
    assert any(re.search("does not belong to this run", str(error)) for error in errors)


def connect_as_nobody(address: str, got: Connection) -> None:
    os.setgid(65534)
    os.setuid(65534)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(TIMEOUT_S)
        stranger.connect(address)
        data, files, _, _ = socket.recv_fds(stranger, 100, 1)
        got.send((data, len(files)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_turned_away_before_it_has_said_anything() -> None:
    store, context = HashStore(), multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(serve_shared_memory, store, "link0", LAYOUT, slots=2, patience=PATIENCE)
        stranger = context.Process(target=connect_as_nobody, args=(address_of(store), theirs))
        stranger.start()
        assert ours.poll(TIMEOUT_S) and ours.recv() == (b"", 0)
        stranger.join(TIMEOUT_S)
        attach_shared_memory(store, "link0", LAYOUT, patience=PATIENCE).abandon()
        serving.result(TIMEOUT_S).close()
