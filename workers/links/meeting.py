"""How the two ends of a link come to hold one socket: found through the store, proved to belong to one run."""

import contextlib
import fcntl
import os
import select
import socket
import struct
import uuid
from collections.abc import Iterator

from torch.distributed import PrefixStore, Store

from greedypipe.workers.links.control import ControlSocket
from greedypipe.workers.links.gloo_group import OWN_INTERFACES
from greedypipe.workers.links.messages import MessageLayout
from greedypipe.workers.links.patience import Patience
from greedypipe.workers.links.proof import SECRET_BYTES, Proof, check_secret, check_user

SECRET_S = 2.0
"""How long whoever connects may take to show its secret: a sender shows it at once."""
BACKLOG = 64
CODE = struct.Struct("=q")
"""A layout's code."""
LOOPBACK = "127.0.0.1"
_SIOCGIFADDR = 0x8915
_REQUEST = struct.Struct("256s")
_PORT_OF_NOTHING = 9


def meet_as_receiver(store: Store, layout: MessageLayout, *, patience: Patience, is_on_one_host: bool) -> ControlSocket:
    """Waits for the sender of a link at an address of this process; blocks until it has come.

    Args:
        store: For this link alone.
        is_on_one_host: Whether both ends are; otherwise the address is that from which this host reaches the store.

    Raises:
        ConnectionError: The sender did not come in time; GivenUp if waiting became pointless.
        ValueError: Its messages have another layout.
    """
    proof = Proof.offer(store)
    with listen_on_this_host() if is_on_one_host else _listen_to_other_hosts(store) as listener:
        address = listener.getsockname()
        store.set("address", address if is_on_one_host else f"{address[0]} {address[1]}")
        connection = accept(listener, proof, patience)
    with connecting(connection, patience):
        connection.sendall(proof.receiver + CODE.pack(layout.code))
        (theirs,) = CODE.unpack(connection.recv(CODE.size, socket.MSG_WAITALL))
    check_layout(theirs, layout, patience.peer)
    return ControlSocket(connection, patience.peer)


def meet_as_sender(store: Store, layout: MessageLayout, *, patience: Patience, is_on_one_host: bool) -> ControlSocket:
    """Goes to the receiver of a link: the counterpart of `meet_as_receiver`. Blocks and raises as it does."""
    address = patience.read(store, "address").decode()
    proof = Proof.find(store, patience)
    host, _, port = address.partition(" ")
    family = socket.AF_UNIX if is_on_one_host else _family(host)
    connection = socket.socket(family, socket.SOCK_STREAM)
    with connecting(connection, patience):
        connection.connect(address if is_on_one_host else (host, int(port)))
        if is_on_one_host:
            check_user(connection, patience.peer)
        connection.sendall(proof.sender)
        shown = connection.recv(SECRET_BYTES + CODE.size, socket.MSG_WAITALL)
        check_secret(shown[:SECRET_BYTES], proof.receiver, patience.peer)
        (theirs,) = CODE.unpack(shown[SECRET_BYTES:])
        connection.sendall(CODE.pack(layout.code))
    check_layout(theirs, layout, patience.peer)
    return ControlSocket(connection, patience.peer)


def listen_on_this_host() -> socket.socket:
    """A Unix socket that listens at an address of its own."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # In Linux's abstract namespace: there is no file, and the address is gone with the socket.
    listener.bind(f"\0greedypipe-{uuid.uuid4().hex}")
    listener.listen(BACKLOG)
    return listener


def accept(listener: socket.socket, proof: Proof, patience: Patience) -> socket.socket:
    """The sender's connection; strangers are turned away. Blocks; raises as `Patience.wait_until` does."""
    knock = select.poll()
    knock.register(listener, select.POLLIN)
    while True:
        patience.wait_until(lambda: bool(knock.poll(0)))
        connection, _ = listener.accept()
        connection.settimeout(SECRET_S)
        with contextlib.suppress(OSError):
            if connection.family == socket.AF_UNIX:
                check_user(connection, patience.peer)
            check_secret(connection.recv(SECRET_BYTES, socket.MSG_WAITALL), proof.sender, patience.peer)
            return connection
        connection.close()


def check_layout(theirs: int, layout: MessageLayout, peer: str) -> None:
    """Raises ValueError where the other end's layout, by its code, is another one."""
    if theirs != layout.code:
        ours = f"at most {layout.max_rows} rows of {layout.specs}"
        raise ValueError(f"{peer} has another message layout (code {theirs}, here {layout.code}): {ours}")


@contextlib.contextmanager
def connecting(connection: socket.socket, patience: Patience) -> Iterator[None]:
    """Gives the calls inside the patience's deadline, and turns what they raise into a ConnectionError about the peer."""
    connection.settimeout(patience.timeout_s)
    try:
        yield
    except (OSError, struct.error) as error:
        raise ConnectionError(f"lost {patience.peer} while connecting: {error}") from error


def _listen_to_other_hosts(store: Store) -> socket.socket:
    """A TCP socket at the address of this host from which it reaches the store, or that of the interface that the user
    has named for gloo."""
    interfaces = os.environ.get(OWN_INTERFACES, "")
    host = _address_of(interfaces.split(",")[0]) if interfaces else _address_towards(store)
    return socket.create_server((host, 0), family=_family(host), backlog=BACKLOG)


def _address_towards(store: Store) -> str:
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    host, port = getattr(store, "host", LOOPBACK), getattr(store, "port", _PORT_OF_NOTHING)
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as route:
        route.connect(address)  # sends nothing, but chooses the way
        return str(route.getsockname()[0])


def _address_of(interface: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, _REQUEST.pack(interface.encode()[:15]))
    return socket.inet_ntoa(answer[20:24])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
