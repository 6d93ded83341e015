"""Which processes share a host."""

import os
import socket
from pathlib import Path


def memory_of_host() -> str:
    """A text that two processes have in common exactly when they can share memory: one kernel, one network namespace.

    The namespace counts because the ends of a shared-memory link meet at an address that belongs to one.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return f"{socket.gethostname()} {os.getpid()}"
    return f"{boot.read_text(encoding='utf-8').strip()} {os.stat('/proc/self/ns/net').st_ino}"
