"""Two hosts on one machine: network namespaces with addresses of their own and a line between them (iproute2, root)."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CLONE_NEWNET = 0x40000000
BURST_KBIT, QUEUE_MS = 256, 400


@dataclass(frozen=True)
class Hosts:
    """Names of the namespaces, their addresses, and the interfaces that the line ends at."""

    names: tuple[str, str]
    addresses: tuple[str, str]
    interfaces: tuple[str, str]

    def command(self, host: int, arguments: Sequence[str]) -> list[str]:
        """A command that runs on one of them."""
        return ["ip", "netns", "exec", self.names[host], *arguments]

    def enter(self, rank: int) -> None:
        """Moves the calling process to a host, the first ranks to the first one. Open connections stay where they are."""
        host = min(rank, 1)
        descriptor = os.open(f"/run/netns/{self.names[host]}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {self.names[host]}")
        finally:
            os.close(descriptor)
        os.environ |= self.environment(host)

    def environment(self, host: int) -> dict[str, str]:
        """What gloo needs to take the line, as no name server knows these hosts."""
        return {"GLOO_SOCKET_IFNAME": self.interfaces[host], "TP_SOCKET_IFNAME": self.interfaces[host]}


def why_not() -> str:
    """Why this machine cannot play two hosts; empty where it can."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
        return "needs root and iproute2"
    name = f"gp{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, encoding="utf-8")
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return made.stderr.strip()


@contextlib.contextmanager
def two_hosts(rate_mbit: int | None = None) -> Iterator[Hosts]:
    """Makes two hosts for the body, and ends whatever still runs on them afterwards.

    Args:
        rate_mbit: Of the line, in both directions; None: as fast as the machine.

    Raises:
        RuntimeError: The machine cannot, see `why_not`.
    """
    mark = f"gp{os.getpid() % 100000}"
    hosts = Hosts((f"{mark}a", f"{mark}b"), ("10.77.0.1", "10.77.0.2"), (f"{mark}v0", f"{mark}v1"))
    try:
        for name in hosts.names:
            _ip("netns", "add", name)
        _ip("link", "add", hosts.interfaces[0], "type", "veth", "peer", "name", hosts.interfaces[1])
        for name, address, interface in zip(hosts.names, hosts.addresses, hosts.interfaces, strict=True):
            _ip("link", "set", interface, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", interface)
            _ip("-n", name, "link", "set", interface, "up")
            _ip("-n", name, "link", "set", "lo", "up")
            if rate_mbit:
                _run(
                    "ip",
                    "netns",
                    "exec",
                    name,
                    "tc",
                    "qdisc",
                    "add",
                    "dev",
                    interface,
                    "root",
                    "tbf",
                    "rate",
                    f"{rate_mbit}mbit",
                    "burst",
                    f"{BURST_KBIT}kbit",
                    "latency",
                    f"{QUEUE_MS}ms",
                )
        yield hosts
    finally:
        for name in hosts.names:
            _end_all(name)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _end_all(name: str) -> None:
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, encoding="utf-8")
    for pid in found.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
