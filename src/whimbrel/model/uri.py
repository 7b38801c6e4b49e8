"""Where a host is: this machine, or one that SSH or libvirt reaches.

qemu:///local                      this machine, plain QEMU
qemu+ssh://user@host:port          plain QEMU there
libvirt:///system                  this machine, run by libvirt
libvirt+ssh://user@host:port/system    likewise there, over SSH
libvirt+tls://host:port/system         over libvirt's TLS; no shell leads there
libvirt+tls://host/system?pkipath=/path    the same, with the certificates of that folder
libvirt+tcp://host:port/system         over plain TCP, for labs: anybody may listen and come in
libvirt+unix:///system?socket=/path    this machine, another socket of libvirt's
"""

from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, quote, urlsplit, urlunsplit

from whimbrel.errors import ConfigError

LOCAL = "qemu:///local"
SSH = "qemu+ssh"
SSH_PORT = 22
LIBVIRT = "libvirt"

_ON_THIS_MACHINE = {"libvirt", "libvirt+unix"}
_ELSEWHERE = {"libvirt+ssh", "libvirt+tls", "libvirt+tcp"}

_PATHS = {"libvirt+unix": "socket", "libvirt+tls": "pkipath"}
"""What a URI may say besides, a path on this machine: libvirt's own words for it."""

_HINT = (
    f'Write it as "{LOCAL}", or "{SSH}://user@host:port"; user and port may be left out. '
    'Where libvirt runs the host: "libvirt:///system", or "libvirt+ssh://user@host:port/system".'
)


@dataclass(frozen=True)
class HostPlace:
    """Where a host is.

    Attributes:
        address: Name or IP address; None: this machine.
        user: Who one is there; None: as ssh would.
        port: Where its sshd listens.
        libvirt: libvirt's own URI of it; empty: plain QEMU.
        shell: Whether a shell leads there, of this machine or over SSH.
    """

    address: str | None = None
    user: str | None = None
    port: int = SSH_PORT
    libvirt: str = ""
    shell: bool = True

    @property
    def local(self) -> bool:
        """Whether it is this machine."""
        return self.address is None

    @property
    def unguarded(self) -> bool:
        """Whether neither side is known to the other on the way there, and all can be read."""
        return self.libvirt.startswith("qemu+tcp:")


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
    if parts.scheme.partition("+")[0] == LIBVIRT:
        return _libvirt(text, parts)
    if parts.scheme != SSH or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigError(f'"{text}" is no URI of a host.', _HINT)
    if not address or address.startswith("-") or port == 0:
        raise ConfigError(f'"{text}" names no host and port that can be reached.', _HINT)
    return HostPlace(address, parts.username or None, SSH_PORT if port is None else port)


_LIBVIRT_HINT = 'Write it as "libvirt:///system" or "libvirt+ssh://user@host:port/system".'


def _libvirt(text: str, parts: SplitResult) -> HostPlace:
    """Read the URI of a host that libvirt runs, mapped on libvirt's own remote transport."""
    elsewhere = parts.scheme in _ELSEWHERE
    if parts.scheme not in _ON_THIS_MACHINE | _ELSEWHERE or parts.path != "/system":
        raise ConfigError(f'"{text}" is no URI of a host.', _LIBVIRT_HINT)
    if elsewhere != bool(parts.hostname) or parts.fragment or parts.port == 0:
        raise ConfigError(f'"{text}" names no host and port that can be reached.', _LIBVIRT_HINT)
    if parts.hostname and parts.hostname.startswith("-"):
        raise ConfigError(f'"{text}" names no host and port that can be reached.', _LIBVIRT_HINT)
    key = _PATHS.get(parts.scheme, "")
    path = parse_qs(parts.query).get(key, [""])
    wanted = f"{key}={quote(path[0])}" if parts.query else ""
    if wanted and (not key or len(path) > 1 or not path[0].startswith("/")):
        raise ConfigError(f'"{text}" asks for more than a place.', _LIBVIRT_HINT)
    own = parts._replace(scheme=parts.scheme.replace(LIBVIRT, "qemu", 1), query=wanted)
    return HostPlace(
        parts.hostname,
        parts.username or None,
        parts.port or SSH_PORT,
        libvirt=urlunsplit(own) if elsewhere else _here(own),
        shell=parts.scheme not in {"libvirt+tls", "libvirt+tcp"},
    )


def _here(own: SplitResult) -> str:
    """Return libvirt's URI of this machine; urlunsplit leaves out the empty host."""
    return f"{own.scheme}://{own.path}" + (f"?{own.query}" if own.query else "")
