"""The server of Weights & Biases: whether there is a key for it, and whether it answers."""

import netrc
import os
import ssl
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ANSWER_S = 5.0
"""How long it may take: hosts without a network can take minutes to find out."""
PUBLIC = "https://api.wandb.ai"
KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


@dataclass(frozen=True)
class Server:
    """Where runs go online."""

    url: str

    @classmethod
    def configured(cls) -> "Server":
        """The server that WANDB_BASE_URL names or `wandb login --host` has noted, or else the public one."""
        noted = _noted_url(Path.home() / ".config" / "wandb" / "settings")
        return cls(os.environ.get("WANDB_BASE_URL") or noted or PUBLIC)

    def problem(self) -> str:
        """Why no run can go online, in words; empty where one can. Blocks for ANSWER_S at most."""
        if not self.has_key():
            return f"there is no API key for {self.url} (WANDB_API_KEY, or wandb login)"
        return "" if self.answers() else f"{self.url} does not answer within {ANSWER_S:g} s"

    def has_key(self) -> bool:
        """Whether there is an API key for it. Their own client would ask for one on a terminal."""
        if any(os.environ.get(name) for name in KEYS):
            return True
        try:
            found = netrc.netrc(os.environ.get("NETRC") or str(Path.home() / ".netrc"))
        except (OSError, netrc.NetrcParseError):
            return False
        return urlsplit(self.url).netloc in found.hosts

    def answers(self) -> bool:
        """Whether it says anything in time, through the proxy that the environment names if there is one."""
        found: list[bool] = []
        # In a thread that may be left behind: looking up a name has no time limit of its own.
        probe = threading.Thread(target=lambda: found.append(_responds(self.url)), name="wandb-probe", daemon=True)
        probe.start()
        probe.join(ANSWER_S)
        return found == [True]


def _responds(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=ANSWER_S).close()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError) as error:
        # A certificate that Python does not know may be known to their client.
        return isinstance(getattr(error, "reason", None), ssl.SSLError)
    return True


def _noted_url(path: Path) -> str:
    """The base_url of their client's settings, an INI file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return ""
    pairs = [line.partition("=") for line in lines]
    return next((value.strip() for key, _, value in pairs if key.strip() == "base_url"), "")
