"""The rendezvous store that a launcher hosts."""

import socket

import pytest
from torch.distributed import TCPStore

from greedypipe.launch.process.environment import LOOPBACK, host_store

OTHER = "127.0.0.2"


@pytest.mark.parametrize(("host", "elsewhere"), [(LOOPBACK, OTHER), (OTHER, LOOPBACK)])
def test_a_store_listens_at_one_address_only(host: str, elsewhere: str) -> None:
    store, port = host_store(host)
    store.set("key", "value")
    assert TCPStore(host, port, wait_for_workers=False).get("key") == b"value"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((elsewhere, port), timeout=5)


def test_an_address_of_another_host_is_refused() -> None:
    with pytest.raises(OSError):
        host_store("192.0.2.1")
