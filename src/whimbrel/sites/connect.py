"""From a host as its owner describes it to the way onto it."""

from urllib.parse import SplitResult, urlsplit

from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Host
from whimbrel.ports import Shell
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite
from whimbrel.sites.ssh import SshPlace, SshShell

LOCAL = "qemu:///local"
_SSH = "qemu+ssh"


def connect(host: Host) -> OnSite:
    """Return the host's site; nothing is connected before the first question.

    Raises:
        ConfigError: The host's `uri` is none that whimbrel knows; the hint has the nearest.
    """
    return OnSite(shell(host), host.folder)


def shell(host: Host) -> Shell:
    """Return the way onto a host.

    Raises:
        ConfigError: As `connect` does.
    """
    if host.uri == LOCAL:
        return LocalShell(host.name)
    return SshShell(host.name, place(host))


def place(host: Host) -> SshPlace:
    """Read where SSH finds a host: qemu+ssh://[user@]host[:port].

    Raises:
        ConfigError: As `connect` does.
    """
    parts = _split(host)
    plain = parts.path in {"", "/"} and not parts.query and not parts.fragment
    if parts.scheme != _SSH or not parts.hostname or not plain or parts.password is not None:
        raise _wrong(host, parts)
    return SshPlace(
        host=parts.hostname,
        user=parts.username or None,
        port=_port(host, parts) or 22,
        identity=host.identity.expanduser() if host.identity else None,
        known_hosts=host.known_hosts.expanduser() if host.known_hosts else None,
    )


def _split(host: Host) -> SplitResult:
    try:
        return urlsplit(host.uri)
    except ValueError as error:  # brackets that do not match
        raise ConfigError(
            f"The address of host {host.name} cannot be read: {error}.",
            f"Write {_SSH}://root@HOST, with an IPv6 address in square brackets.",
        ) from error


def _port(host: Host, parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError as error:
        raise ConfigError(
            f"The port in {_shown(parts)} of host {host.name} is none.",
            f"Write a number from 1 to 65535: {_SSH}://{_authority(parts)}:22.",
        ) from error


def _wrong(host: Host, parts: SplitResult) -> ConfigError:
    """Say what is not understood, without a password that may stand in it."""
    if parts.password is not None:
        return ConfigError(
            f"The address of host {host.name} holds a password; whimbrel uses SSH keys only.",
            f"Write {_SSH}://{_authority(parts)} and set identity where the key is not your usual.",
        )
    return ConfigError(
        f"The address {_shown(parts)} of host {host.name} is none that whimbrel knows.",
        f"Did you mean {nearest(host.uri)}? There are {LOCAL} and {_SSH}://[USER@]HOST[:PORT].",
    )


def nearest(uri: str) -> str:
    """Return the right form that is nearest to a wrong one."""
    text = uri if "://" in uri else f"{_SSH}://{uri}"
    parts = urlsplit(text)
    if not parts.hostname or ("@" not in text and parts.hostname in {"local", "localhost"}):
        return LOCAL
    return f"{_SSH}://{_authority(parts, port=True)}"


def _authority(parts: SplitResult, *, port: bool = False) -> str:
    """Return [user@]host[:port] of an address, or words for what it lacks."""
    name = parts.hostname or "HOST"
    name = f"[{name}]" if ":" in name else name
    user = f"{parts.username}@" if parts.username else ""
    _, _, digits = parts.netloc.rpartition("]")[2].rpartition("@")[2].partition(":")
    return f"{user}{name}" + (f":{digits}" if port and digits.isdigit() else "")


def _shown(parts: SplitResult) -> str:
    return parts.geturl() or "(empty)"
