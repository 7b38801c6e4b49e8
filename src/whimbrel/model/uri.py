"""Where a host is: this machine, or one that SSH reaches."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from whimbrel.errors import ConfigError

LOCAL = "qemu:///local"
SSH = "qemu+ssh"
SSH_PORT = 22

_HINT = f'Write it as "{LOCAL}", or "{SSH}://user@host:port"; user and port may be left out.'


@dataclass(frozen=True)
class HostPlace:
    """Where a host is.

    Attributes:
        address: Name or IP address; None: this machine.
        user: Who one is there; None: as ssh would.
        port: Where its sshd listens.
    """

    address: str | None = None
    user: str | None = None
    port: int = SSH_PORT

    @property
    def local(self) -> bool:
        """Whether it is this machine."""
        return self.address is None


def parse_uri(text: str) -> HostPlace:
    """Read a host's URI; `ConfigError` where it is none, which repeats no password."""
    if text == LOCAL:
        return HostPlace()
    try:
        parts = urlsplit(text)
        address, port, secret = parts.hostname, parts.port, parts.password
    except ValueError:
        raise ConfigError("is no URI of a host.", _HINT) from None
    if secret is not None:
        raise ConfigError(
            "holds a password, which may stand in no file.",
            "Leave it out: whimbrel logs in with your SSH keys.",
        )
    if parts.scheme != SSH or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigError(f'"{text}" is no URI of a host.', _HINT)
    if not address or address.startswith("-") or port == 0:
        raise ConfigError(f'"{text}" names no host and port that can be reached.', _HINT)
    return HostPlace(address, parts.username or None, SSH_PORT if port is None else port)
