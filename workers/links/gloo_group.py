"""A process group of gloo's whose making can be given up, and which listens no wider than its members need."""

import os
from datetime import timedelta
from typing import Any

from torch.distributed import ProcessGroupGloo, Store

from greedypipe.workers.links.patience import Patience
from greedypipe.workers.this_host import memory_of_host

LOOPBACK = "127.0.0.1"
OWN_INTERFACES = "GLOO_SOCKET_IFNAME"
"""Names the network interfaces to use, where their user has set it."""


def make_gloo_group(store: Store, rank: int, size: int, *, patience: Patience, deadline_s: float) -> Any:
    """Builds one member of a group; blocks until all have come. No default group of torch.distributed is touched.

    Args:
        store: For this group alone.
        deadline_s: Of every operation of the group.

    Returns:
        A ProcessGroupGloo, of which torch's stubs leave operations out.

    Raises:
        ConnectionError: A member did not come in time, or is gone; GivenUp where waiting became pointless.
    """
    here = memory_of_host()
    store.set(f"host{rank}", here)
    hosts = {patience.read(store, f"host{other}").decode() for other in range(size)}
    gloo: Any = ProcessGroupGloo
    options = gloo._Options()
    options._timeout = timedelta(seconds=deadline_s)
    options._devices = _devices(is_on_one_host=hosts == {here})
    try:
        return patience.call(lambda: gloo(store, rank, size, options))
    except RuntimeError as error:
        raise ConnectionError(f"lost {patience.peer} while connecting: {_first_line(error)}") from error


def _devices(*, is_on_one_host: bool) -> list[Any]:
    """What the group listens on: on several hosts, what torch takes by itself."""
    gloo: Any = ProcessGroupGloo
    if interfaces := os.environ.get(OWN_INTERFACES):
        return [gloo.create_device(interface=interface) for interface in interfaces.split(",")]
    return [gloo.create_device(hostname=LOOPBACK) if is_on_one_host else gloo.create_default_device()]


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
