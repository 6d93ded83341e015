"""How two ends of a link agree on what carries it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from greedypipe.workers.links import place
from greedypipe.workers.links.connect import LinkEnd
from greedypipe.workers.links.gloo import ProcessGroupReceiver, ProcessGroupSender
from greedypipe.workers.links.interface import LinkConfig
from greedypipe.workers.links.messages import Kind, Message
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.shared_memory import SharedMemoryReceiver, SharedMemorySender
from greedypipe.workers.this_host import memory_of_host
from tests.conformance.implementations import LAYOUT, SHORT_S, TIMEOUT_S

CPU, META = torch.device("cpu"), torch.device("meta")


def both_ends(config: LinkConfig, device: torch.device = CPU, timeout_s: float = TIMEOUT_S) -> tuple[object, object]:
    store = HashStore()

    def end(peer: str) -> LinkEnd:
        return LinkEnd(config, store, "link0", LAYOUT, device=device, patience=Patience(peer, timeout_s))

    with ThreadPoolExecutor(2) as threads:
        receiving = threads.submit(end("stage 0").receive, 3)
        sending = threads.submit(end("stage 1").send)
    return sending.result(), receiving.result()


def close(sender: object, receiver: object) -> None:
    sender.send(Message(Kind.END, 0))  # type: ignore[attr-defined]
    receiver.receive().release()  # type: ignore[attr-defined]
    sender.close()  # type: ignore[attr-defined]
    receiver.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("transport", "kinds"),
    [
        ("auto", (SharedMemorySender, SharedMemoryReceiver)),
        ("shm", (SharedMemorySender, SharedMemoryReceiver)),
        ("gloo", (ProcessGroupSender, ProcessGroupReceiver)),
    ],
)
def test_on_one_host_the_transport_is_the_one_asked_for_and_shared_memory_by_default(
    transport: str, kinds: tuple[type, type]
) -> None:
    sender, receiver = both_ends(LinkConfig(transport=transport))  # type: ignore[arg-type]
    assert (type(sender), type(receiver)) == kinds
    assert sender.stats.transport == ("gloo" if transport == "gloo" else "shm")  # type: ignore[attr-defined]
    close(sender, receiver)


def test_between_hosts_auto_takes_gloo_and_shared_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = iter(["one", "other"] * 2)
    monkeypatch.setattr(place, "memory_of_host", lambda: next(hosts))
    sender, receiver = both_ends(LinkConfig())
    assert isinstance(sender, ProcessGroupSender) and isinstance(receiver, ProcessGroupReceiver)
    close(sender, receiver)
    with pytest.raises(ValueError, match=r"link.transport: got shm, but stage \d shares no host memory.*gloo"):
        both_ends(LinkConfig(transport="shm"))


def test_stages_that_are_not_on_the_cpu_take_gloo() -> None:
    sender, receiver = both_ends(LinkConfig(), device=META)
    assert isinstance(sender, ProcessGroupSender)
    close(sender, receiver)


def test_an_end_whose_peer_does_not_come_gives_up_at_the_deadline_and_names_it() -> None:
    end = LinkEnd(LinkConfig(), HashStore(), "link0", LAYOUT, device=CPU, patience=Patience("stage 5", SHORT_S))
    for build in (end.send, lambda: end.receive(2)):
        with pytest.raises(ConnectionError, match=r"waited 0.3 s to connect to stage 5"):
            build()


def test_slots_of_the_link_come_on_top_of_those_of_the_buffer() -> None:
    sender, receiver = both_ends(LinkConfig(slots=4))
    for number in range(3 + 4):
        sender.send(Message(Kind.EVALUATED, number))  # type: ignore[attr-defined]
    assert sender.wait_room_s == 0  # type: ignore[attr-defined]
    for _ in range(3 + 4):
        receiver.receive().release()  # type: ignore[attr-defined]
    close(sender, receiver)


def test_the_memory_of_this_host_is_that_of_this_kernel() -> None:
    assert memory_of_host() == memory_of_host()
    assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() in memory_of_host()
