"""From a host as its owner describes it to the way onto it."""

from urllib.parse import urlsplit

from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Host
from whimbrel.model.uri import LOCAL, SSH, parse_uri
from whimbrel.ports import Shell
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite
from whimbrel.sites.ssh import SshPlace, SshShell


def connect(host: Host) -> OnSite:
    """Return the host's site; nothing is connected before the first question.

    Where the connection has broken, the site stays lost: connect again for a new one.

    Raises:
        ConfigError: The host's `uri` is none that whimbrel knows; the hint has the nearest.
    """
    return OnSite(shell(host), host.folder)


def shell(host: Host) -> Shell:
    """Return the way onto a host; raises `ConfigError` as `connect` does."""
    try:
        place = parse_uri(host.uri)
    except ConfigError as error:
        form = nearest(host.uri)
        hint = f"Did you mean {form}? {error.hint}" if form else error.hint
        raise ConfigError(f"The uri of host {host.name} {error.what}", hint) from error
    if not place.shell:
        raise ConfigError(
            f"Host {host.name} is reached through libvirt only: no shell leads there.",
            f"Where SSH leads there too, write libvirt+ssh://{place.address}/system.",
        )
    if place.address is None:
        return LocalShell(host.name)
    return SshShell(
        host.name,
        SshPlace(
            host=place.address,
            user=place.user,
            port=place.port,
            identity=host.identity.expanduser() if host.identity else None,
            known_hosts=host.known_hosts.expanduser() if host.known_hosts else None,
        ),
    )


def nearest(uri: str) -> str:
    """Return the right form that is nearest to a wrong one; empty where nothing is near."""
    try:
        parts = urlsplit(uri if "://" in uri else f"{SSH}://{uri}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if name in {"", "local", "localhost"} and not parts.username:
        return LOCAL
    user = f"{parts.username}@" if parts.username else ""
    return f"{SSH}://{user}{f'[{name}]' if ':' in name else name}{f':{port}' if port else ''}"
