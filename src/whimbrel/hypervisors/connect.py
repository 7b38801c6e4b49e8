"""From a host as its owner describes it to its hypervisor."""

from urllib.parse import urlencode

from whimbrel.errors import ConfigError
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.model.inventory import Host
from whimbrel.model.uri import parse_uri
from whimbrel.ports import Site

LOCAL = "qemu:///local"
_QEMU = ("qemu://", "qemu+ssh://")


def connect(host: Host, site: Site) -> ResidentHost:
    """Return the hypervisor of the host that `site` leads to; nothing is asked of it yet.

    To be closed after use (`async with`); VMs go on.

    Raises:
        ConfigError: The host's `uri` names a hypervisor that is not plain QEMU.
    """
    if not host.uri.startswith(_QEMU):
        scheme = host.uri.partition("://")[0]
        raise ConfigError(
            f'Host {host.name} has the hypervisor "{scheme}", and this needs plain QEMU.',
            f"Use {LOCAL} or qemu+ssh://user@host.",
        )
    return ResidentHost(host.name, site, here=host.uri == LOCAL)


def runs_libvirt(host: Host) -> bool:
    """Tell whether libvirt runs a host, by its URI; raises `ConfigError` for one that is none."""
    return bool(parse_uri(host.uri).libvirt)


def connect_libvirt(host: Host, site: Site | None) -> LibvirtHost:
    """Return the hypervisor of a host that libvirt runs; nothing is asked of it yet.

    To be closed after use (`async with`); VMs go on.

    Args:
        host: The host.
        site: The way onto it, where a shell leads there.
    """
    uri, peer = libvirt_uri(host), host.peer or ""
    return LibvirtHost(host.name, uri, site, peer=peer, sockets=host.channel_folder)


def libvirt_uri(host: Host) -> str:
    """Return libvirt's own URI of a host, with the SSH key and host keys of its description.

    libvirt starts the ssh of this machine, which cannot be told of a file of host keys; where one
    is given, libvirt's SSH library is used, which can.
    """
    uri = parse_uri(host.uri).libvirt
    wanted = {}
    if host.identity is not None:
        wanted["keyfile"] = str(host.identity.expanduser())
    if host.known_hosts is not None:
        uri = uri.replace("qemu+ssh:", "qemu+libssh:", 1)
        wanted["known_hosts"] = str(host.known_hosts.expanduser())
        wanted["known_hosts_verify"] = "normal"
        wanted["sshauth"] = "privkey,agent"
    elif uri.startswith("qemu+ssh:"):
        wanted["no_tty"] = "1"  # a question for a password would wait for nobody
    return f"{uri}?{urlencode(wanted, safe='/,')}" if wanted else uri
