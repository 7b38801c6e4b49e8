"""What a host's libvirt was told in its qemu.conf, where a shell leads to the host.

libvirt itself tells nobody: without a shell all is taken to be as libvirt comes, and what it has
not got, it refuses by itself at the beginning of a move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whimbrel.errors import ConfigError, Unsupported
from whimbrel.model.inventory import Capability
from whimbrel.model.migration import Side
from whimbrel.model.tls import CLIENT_FILES, SERVER_FILES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whimbrel.model.inventory import X509

PORTS = range(49152, 49216)
"""Where libvirt's destinations listen unless its qemu.conf says otherwise."""

CERTIFICATES = "/etc/pki/qemu"
"""Where libvirt looks for certificates unless its qemu.conf says otherwise."""

_FILES = {Side.SOURCE: CLIENT_FILES, Side.DESTINATION: SERVER_FILES}


@dataclass(frozen=True)
class Settings:
    """What was found.

    Attributes:
        ports: Where destinations may listen.
        certificates: The folder in which libvirt looks for the certificates of moves.
        found: Names of the files there; None: that cannot be seen.
        rdma: Whether the host has an RDMA device; None: that cannot be seen.
    """

    ports: range = PORTS
    certificates: str = CERTIFICATES
    found: frozenset[str] | None = None
    rdma: bool | None = None

    def lacking(self) -> dict[Capability, str]:
        """Return the reason for every capability that the host is seen not to have."""
        reasons: dict[Capability, str] = {}
        if self.rdma is None:
            reason = "whether this host has an RDMA device cannot be seen without a shell"
            reasons |= dict.fromkeys((Capability.RDMA, Capability.RDMA_PIN_ALL), reason)
        elif not self.rdma:
            reason = "no RDMA device on this host (/sys/class/infiniband is empty)"
            reasons |= dict.fromkeys((Capability.RDMA, Capability.RDMA_PIN_ALL), reason)
        if all(self.missing(side) for side in _FILES):
            reasons[Capability.TLS_X509] = self._without(self.missing(Side.DESTINATION))
        return reasons

    def missing(self, side: Side) -> tuple[str, ...]:
        """Return the files that one end of a move needs and that are seen not to be there."""
        if self.found is None:
            return ()
        return tuple(each for each in _FILES[side] if each not in self.found)

    def require(self, host: str, side: Side, credentials: X509) -> None:
        """Raise where libvirt on `host` cannot encrypt a move with these certificates.

        Raises:
            Unsupported: It is seen to have none.
            ConfigError: Others are asked for than those that libvirt takes.
        """
        asked = credentials.source if side is Side.SOURCE else credentials.destination
        if asked and self.found is not None and asked.rstrip("/") != self.certificates.rstrip("/"):
            raise ConfigError(
                f"libvirt on host {host} takes certificates from {self.certificates}, not from "
                f"{asked}.",
                "Name no folder, or change migrate_tls_x509_cert_dir in its qemu.conf.",
            )
        if missing := self.missing(side):
            raise Unsupported(
                f"Host {host} has no certificates for moves as their {side}: "
                f"{self._without(missing)}.",
                "Put them there for the user that QEMU runs as (libvirt's documentation: "
                "Encrypted migration), or name another folder in qemu.conf "
                "(migrate_tls_x509_cert_dir) and start libvirtd again.",
            )

    def _without(self, files: tuple[str, ...]) -> str:
        return f"libvirt looks in {self.certificates}, where there is no {' and no '.join(files)}"


def settings_from(told: Mapping[str, Any]) -> Settings:
    """Read the answer of a host (sites/onsite/libvirt_settings.py)."""
    first, last = told.get("first_port"), told.get("last_port")
    found = told.get("found")
    return Settings(
        range(PORTS.start if first is None else first, PORTS.stop if last is None else last + 1),
        told["certificates"],
        None if found is None else frozenset(found),
        told.get("rdma"),
    )
