"""How the processes of a run find each other: the environment that torchrun sets, read once."""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from torch.distributed import HashStore, PrefixStore, Store, TCPStore

from greedypipe.launch.config.errors import ConfigError
from greedypipe.launch.process import launcher

FOLDER = "greedypipe/folder"
"""Key that outlives a restart, unlike all others."""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Environment:
    """What the launcher has told this process; a process started by hand is the only one of its run.

    Attributes:
        attempt: How often the launcher has restarted the run.
    """

    rank: int
    local_rank: int
    world_size: int
    attempt: int

    @classmethod
    def read(cls) -> "Environment":
        """Reads torchrun's variables.

        Raises:
            ConfigError: They are left over from another launcher, which has set some of them or set them otherwise.
        """
        if problem := launcher.problem():
            raise ConfigError([problem])
        return cls(
            rank=_number("RANK", 0),
            local_rank=_number("LOCAL_RANK", 0),
            world_size=_number("WORLD_SIZE", 1),
            attempt=_number("TORCHELASTIC_RESTART_COUNT", 0),
        )

    def variables(self, port: int) -> dict[str, str]:
        """What torchrun would set, for a run whose store is at a port of this host (`host_store`)."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.world_size),
            "TORCHELASTIC_RESTART_COUNT": str(self.attempt),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "MASTER_ADDR": LOOPBACK,
            "MASTER_PORT": str(port),
        }

    @staticmethod
    def noted_folder(store: Store) -> Path | None:
        """The folder that this run, or an earlier attempt of it, has noted with `note_folder`."""
        base = _unprefixed(store)
        return Path(base.get(FOLDER).decode()) if base.check([FOLDER]) else None

    @staticmethod
    def note_folder(store: Store, folder: Path) -> None:
        """Lets later attempts of this run find its folder."""
        _unprefixed(store).set(FOLDER, str(folder.absolute()))

    @staticmethod
    def prefix(attempt: int) -> str:
        """The prefix of one attempt's keys."""
        return f"greedypipe/{attempt}"

    def check_store_outlives_processes(self) -> None:
        """Raises ConfigError where the store would be gone with the process of rank 0."""
        if self.world_size > 1 and not self._agent_hosts_store:
            raise ConfigError(
                ["faults.policy=isolate needs a store that outlives rank 0: start with torchrun, whose agent hosts it"]
            )

    @property
    def ranks_here(self) -> range:
        """The ranks on this host, which torchrun numbers one after the other."""
        first = self.rank - self.local_rank
        return range(first, first + _number("LOCAL_WORLD_SIZE", 1))

    @property
    def _agent_hosts_store(self) -> bool:
        return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"

    def connect(self, connections: int, timeout_s: float) -> list[Store]:
        """Opens independent connections to the run's store, which torchrun's agent hosts.

        Keys carry the attempt: the agent's store outlives a restart and would give the new processes the addresses of
        the old ones.
        """
        if self.world_size == 1 and not self._agent_hosts_store:
            return [HashStore()] * connections
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        stores: list[Store] = []
        for number in range(connections):
            is_host = number == 0 and self.rank == 0 and not self._agent_hosts_store
            store = TCPStore(host, port, self.world_size, is_host, timedelta(seconds=timeout_s), wait_for_workers=False)
            stores.append(PrefixStore(self.prefix(self.attempt), store))
        return stores


def host_store(host: str = LOOPBACK) -> tuple[TCPStore, int]:
    """A store at a free port of one address of this host; it lives with the object.

    It listens at that address alone; torch's own store would listen at all of them.

    Raises:
        OSError: The address is not one of this host's.
    """
    listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = listening.getsockname()[1]
    return TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()), port


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def _unprefixed(store: Store) -> Store:
    return store.underlying_store if isinstance(store, PrefixStore) else store
