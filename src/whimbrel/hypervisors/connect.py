"""From a host as its owner describes it to its hypervisor."""

from whimbrel.errors import ConfigError
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.model.inventory import Host
from whimbrel.ports import Site

LOCAL = "qemu:///local"
_QEMU = ("qemu://", "qemu+ssh://")


def connect(host: Host, site: Site) -> ResidentHost:
    """Return the hypervisor of the host that `site` leads to; nothing is asked of it yet.

    To be closed after use (`async with`); VMs go on.

    Raises:
        ConfigError: The host's `uri` names a hypervisor that whimbrel does not know.
    """
    if not host.uri.startswith(_QEMU):
        scheme = host.uri.partition("://")[0]
        raise ConfigError(
            f'Host {host.name} has the hypervisor "{scheme}", which whimbrel does not know.',
            f"Use {LOCAL} or qemu+ssh://user@host.",
        )
    return ResidentHost(host.name, site, here=host.uri == LOCAL, sockets=host.sockets)
