"""How two ends of a link whose bytes a GPU moves are built, tested and given up: on the CPU, with stand-ins for NCCL."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch._C._distributed_c10d import ErrorType
from torch.distributed import HashStore, TCPStore

from greedypipe.workers.links import connect, device_link, meeting
from greedypipe.workers.links.connect import LinkEnd
from greedypipe.workers.links.gloo import ProcessGroupReceiver, ProcessGroupSender
from greedypipe.workers.links.interface import LinkConfig
from greedypipe.workers.links.lane import HostLane
from greedypipe.workers.links.mapped import MappedReceiver, MappedSender
from greedypipe.workers.links.messages import Kind, Message, MessageLayout
from greedypipe.workers.links.paced_receiver import PacedReceiver
from greedypipe.workers.links.paced_sender import PacedSender
from greedypipe.workers.links.patience import GivenUp, Patience
from tests.conformance.implementations import LABELS, LAYOUT, SHORT_S, TIMEOUT_S
from tests.conformance.stand_ins import CPU, FakeGroup, FakePassing, make_fake_group, mapped_ends
from tests.conformance.test_links import assert_same, message

CLASSES = {"nccl": (PacedSender, PacedReceiver), "ipc": (MappedSender, MappedReceiver)}
GLOO = (ProcessGroupSender, ProcessGroupReceiver)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_link, "make_nccl_group", make_fake_group)
    monkeypatch.setattr(device_link, "CudaPassing", FakePassing)


def end(config: LinkConfig, store: Any, peer: str, layout: MessageLayout = LAYOUT, timeout_s: float = TIMEOUT_S) -> LinkEnd:
    return LinkEnd(config, store, "link0", layout, device=CPU, patience=Patience(peer, timeout_s))


def both_ends(monkeypatch: pytest.MonkeyPatch, transport: str, wanted: str = "auto", store: Any = None) -> tuple[Any, Any]:
    monkeypatch.setattr(connect, "choose", lambda *rest: transport)
    config, store = LinkConfig(transport=wanted), store or HashStore()  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as threads:
        receiving = threads.submit(end(config, store, "stage 0").receive, 3)
        sending = threads.submit(end(config, store, "stage 1").send)
    errors = sending.exception(), receiving.exception()
    if any(errors):
        assert type(errors[0]) is type(errors[1])
        raise next(error for error in errors if error)
    return sending.result(), receiving.result()


def assert_carries_messages(sender: Any, receiver: Any) -> None:
    for batch_id in range(3):
        sender.send(message(batch_id=batch_id))
        received = receiver.receive()
        assert_same(received.message, message(batch_id=batch_id))
        received.release()
    sender.close(), receiver.close()


@pytest.mark.parametrize("transport", CLASSES)
def test_both_ends_find_each_other_and_carry_messages(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sender, receiver = both_ends(monkeypatch, transport, wanted=transport)
    assert (type(sender), type(receiver)) == CLASSES[transport]
    assert sender.stats.transport == transport and receiver.lends
    own, theirs = sender.stats.slot_bytes, receiver.slot_bytes
    assert (own > 0 and theirs * 2 == own * 3) if transport == "nccl" else (own == 0 and theirs > 0)
    assert_carries_messages(sender, receiver)


def refuse(*_: Any) -> Any:
    raise RuntimeError("ncclSystemError: no way\nand a long trace")


def damaged(store: Any, rank: int, *rest: Any) -> FakeGroup:
    group = make_fake_group(store, rank, *rest)
    group._damages = True
    return group


def refusing_end(rank: int) -> Callable[..., FakeGroup]:
    return lambda store, own, *rest: refuse() if own == rank else make_fake_group(store, own, *rest)


def failing(store: Any, rank: int, *rest: Any) -> FakeGroup:
    group = make_fake_group(store, rank, *rest)
    group.error = ErrorType.COMM_ERROR
    return group


class Unshareable(FakePassing):
    def give(self, memory: torch.Tensor) -> str:
        return refuse()


class Unreachable(FakePassing):
    def take(self, text: str) -> torch.Tensor:
        return super().take(text).clone()


FAULTS: dict[str, tuple[str, str, Any, str]] = {
    "refused": ("nccl", "make_nccl_group", refuse, "ncclSystemError: no way"),
    "refused to the sender": ("nccl", "make_nccl_group", refusing_end(0), "ncclSystemError: no way"),
    "refused to the receiver": ("nccl", "make_nccl_group", refusing_end(1), "ncclSystemError: no way"),
    "failing": ("nccl", "make_nccl_group", failing, "NCCL reports COMM_ERROR"),
    "damaged": ("nccl", "make_nccl_group", damaged, "bytes"),
    "unshareable": ("ipc", "CudaPassing", Unshareable, "ncclSystemError: no way"),
    "other memory": ("ipc", "CudaPassing", Unreachable, "bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_work_at_one_end_is_left_by_both_and_said_once(
    fault: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    transport, name, stand_in, reason = FAULTS[fault]
    monkeypatch.setattr(device_link, name, stand_in)
    started = time.monotonic()
    sender, receiver = both_ends(monkeypatch, transport)
    assert time.monotonic() - started < TIMEOUT_S / 2, "nobody waits for an end that has given up"
    assert (type(sender), type(receiver)) == GLOO
    assert_carries_messages(sender, receiver)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"link0: gloo instead of {transport}, which does not work here") and reason in line
    assert ("NCCL_DEBUG=INFO" in line) == (transport == "nccl")
    with pytest.raises(
        ValueError, match=rf"link.transport: got {transport}, which does not work .* stage \d: .*{reason}"
    ) as one:
        both_ends(monkeypatch, transport, wanted=transport)
    assert "\n" not in str(one.value)


@pytest.mark.parametrize("interface", ["", "lo,eth9"])
@pytest.mark.parametrize("store", [HashStore, lambda: TCPStore("127.0.0.1", 0, is_master=True)], ids=["hash", "tcp"])
def test_ends_on_two_hosts_meet_over_tcp(store: Any, interface: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = iter("ab")
    monkeypatch.setattr(connect.Place, "of", lambda device: connect.Place(next(hosts), "cuda", "GPU-a", "2.28.9"))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", interface)
    families: list[int] = []
    made = meeting.ControlSocket
    monkeypatch.setattr(
        meeting, "ControlSocket", lambda connection, peer: families.append(connection.family) or made(connection, peer)
    )
    sender, receiver = both_ends(monkeypatch, "nccl", store=store())
    assert families == [socket.AF_INET] * 2
    assert_carries_messages(sender, receiver)


@pytest.mark.parametrize("wanted", ["auto", "gloo"])
def test_between_gpus_gloo_works_beside_the_stage_and_otherwise_as_on_the_cpu(
    wanted: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connect.Place, "of", lambda device: connect.Place("here", "cuda", "GPU-a", "2.28.9"))
    sender, receiver = both_ends(monkeypatch, "gloo", wanted)
    assert (type(sender), type(receiver)) == CLASSES["nccl"] and sender.stats.transport == "gloo"
    assert_carries_messages(sender, receiver)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(device_link, "new_buffer", refuse)
    sender, receiver = both_ends(monkeypatch, "gloo", wanted)
    assert (type(sender), type(receiver)) == GLOO
    assert_carries_messages(sender, receiver)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("link0: every message waits for the GPU") and "no way" in line


def test_between_gpus_gloo_beside_the_stage_is_what_auto_falls_back_to(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connect.Place, "of", lambda device: connect.Place("here", "cuda", "GPU-a", "2.28.9"))
    monkeypatch.setattr(device_link, "make_nccl_group", refuse)
    sender, receiver = both_ends(monkeypatch, "nccl")
    assert (type(sender), type(receiver)) == CLASSES["nccl"] and sender.stats.transport == "gloo"
    assert_carries_messages(sender, receiver)
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("transport", CLASSES)
def test_ends_with_different_layouts_refuse_to_connect(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "choose", lambda *rest: transport)
    other, store = MessageLayout(3, {Kind.TRAIN: (LABELS,)}), HashStore()
    with ThreadPoolExecutor(1) as thread:
        receiving = thread.submit(end(LinkConfig(), store, "stage 3", other).receive, 2)
        with pytest.raises(ValueError, match="stage 4 has another message layout"):
            end(LinkConfig(), store, "stage 4").send()
        with pytest.raises(ValueError, match="stage 3 has another message layout"):
            receiving.result(TIMEOUT_S)


def test_an_end_that_does_not_come_is_waited_for_no_longer_than_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "choose", lambda *rest: "nccl")
    for build in ("send", "receive"):
        store = HashStore()
        for other in range(2):
            store.set(f"link0/place{other}", connect.Place.of(CPU).text())
        waiting = end(LinkConfig(), store, "stage 5", timeout_s=SHORT_S)
        with pytest.raises(ConnectionError, match=r"waited 0.3 s to connect to stage 5"):
            waiting.send() if build == "send" else waiting.receive(2)


def test_the_wait_for_the_other_end_can_be_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "choose", lambda *rest: "nccl")
    store, over = HashStore(), threading.Event()
    store.set("link0/place0", connect.Place.of(CPU).text())
    waiting = LinkEnd(LinkConfig(), store, "link0", LAYOUT, device=CPU, patience=Patience("stage 5", TIMEOUT_S, over.is_set))
    with ThreadPoolExecutor(1) as thread:
        receiving = thread.submit(waiting.receive, 2)
        over.set()
        with pytest.raises(GivenUp, match="stage 5"):
            receiving.result(TIMEOUT_S)


def test_hundreds_of_messages_that_a_sender_has_heard_nothing_of_are_known_to_be_taken() -> None:
    """More words than the socket has room for, when the receiver is closed."""
    count = 1000
    sender, receiver = mapped_ends(LAYOUT, count, TIMEOUT_S, (HostLane(), HostLane()))
    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(lambda: [sender.send(Message(Kind.END, number)) for number in range(count)])
        held = [receiver.receive() for _ in range(count)]
        sending.result()
        for received in held:
            received.release()
        closing = thread.submit(receiver.close)
        sender.close()
        closing.result()
