"""Checks of the network: the migration address, and the bridges of the guest's NICs."""

from whimbrel.model.check import Check, failed, passed, warned
from whimbrel.model.inventory import MigrationAddress, Nic
from whimbrel.model.preflight import BridgeFacts, TrialFacts
from whimbrel.model.storage import EXPORT_PORTS
from whimbrel.model.units import format_time

_BRIDGES = {"bridge", "openvswitch"}
_NOBODY = {"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"}


def migration_address(
    trial: TrialFacts,
    address: MigrationAddress,
    source: str,
    destination: str,
    *,
    name: str = "migration address",
) -> Check:
    """Fail where the destination cannot listen at the address, or the source cannot reach it.

    Args:
        trial: What became of one connection.
        address: Where the destination would listen.
        source: The source's name.
        destination: The destination's name.
        name: The check's: the disks' export is judged likewise.
    """
    place = f"{address.host} port {trial.port or address.port or 'any'}"
    if trial.listen_error == "EADDRINUSE":
        return _taken(name, address, destination)
    if trial.listen_error == "EADDRNOTAVAIL":
        return failed(
            name,
            f"{address.host} is no address of {destination}.",
            f"ip -br address   # on {destination}; put the right one into whimbrel.toml",
        )
    if trial.listen_error:
        return failed(
            name,
            f"{destination} cannot listen at {place}: {trial.listen_error}.",
            "Choose a port above 1023, or leave the port out.",
        )
    if trial.connect_error:
        named = None if address.port else address.ports
        ports = trial.port if named is None else f"{named[0]}-{named[1]}"
        return failed(
            name,
            f"{source} cannot reach {destination} at {place}: {trial.connect_error}.",
            f"nft add rule inet filter input tcp dport {ports} accept   # on {destination}; "
            f"and see from {source}: ip route get {address.host}",
        )
    if not trial.heard:
        return failed(
            name,
            f"Somebody else than {destination} answers {source} at {place}.",
            f"ip neighbour show {address.host}   # on {source}: whose hardware address is it?",
        )
    return passed(
        name, f"{source} reaches {destination} at {address.host} in {format_time(trial.seconds)}."
    )


def _taken(name: str, address: MigrationAddress, destination: str) -> Check:
    if address.port:
        return failed(
            name,
            f"Port {address.port} is taken on {destination}.",
            f"ss -ltnp 'sport = :{address.port}'   # on {destination} names who; or leave the "
            "port out, and a free one is chosen",
        )
    first, last = address.ports or (EXPORT_PORTS.start, EXPORT_PORTS.stop - 1)
    return failed(
        name,
        f"Every port from {first} to {last} is taken on {destination}.",
        f"ss -ltnp 'sport >= :{first} and sport <= :{last}'   # on {destination} names who; or "
        f"name other `ports` of {destination} in whimbrel.toml",
    )


def bridge(
    nic: Nic, here: BridgeFacts | None, there: BridgeFacts | None, destination: str
) -> Check:
    """Fail where a NIC's bridge is not there; warn where it may be another network."""
    name = f"NIC {nic.name}"
    if nic.bridge is None:
        return passed(name, "It is plugged nowhere.")
    if there is None:
        return failed(
            name,
            f"{destination} has no bridge {nic.bridge}.",
            f"ip link add {nic.bridge} type bridge && ip link set {nic.bridge} up   "
            f"# on {destination}; then join it to the guest's network: "
            f"ip link set NIC master {nic.bridge}",
        )
    if there.driver not in _BRIDGES:
        return failed(
            name,
            f"{nic.bridge} on {destination} is no bridge.",
            f"ip -d link show {nic.bridge}   # on {destination}; give the bridge that name",
        )
    if not there.up:
        return failed(
            name,
            f"{nic.bridge} on {destination} is switched off.",
            f"ip link set {nic.bridge} up   # on {destination}",
        )
    return _same_network(name, nic.bridge, here, there, destination)


def _same_network(
    name: str, bridge_name: str, here: BridgeFacts | None, there: BridgeFacts, destination: str
) -> Check:
    if here is not None and there.mtu < here.mtu:
        return warned(
            name,
            f"{bridge_name} on {destination} carries {there.mtu} bytes at once, here {here.mtu}: "
            "the guest's larger packets will be lost.",
            f"ip link set {bridge_name} mtu {here.mtu}   # on {destination}, and its ports",
        )
    look = f"bridge fdb show br {bridge_name}   # on both: the same router must be in sight"
    if here is None:
        return warned(name, f"There is no {bridge_name} here to compare with.", look)
    if seen := sorted((here.stations & there.stations) - _NOBODY):
        return passed(name, f"{bridge_name} is the same network: both see {seen[0]}.")
    if common := sorted(here.networks & there.networks):
        return passed(name, f"{bridge_name} has an address in {common[0]} on both hosts.")
    if here.networks and there.networks:
        networks = f"{', '.join(sorted(here.networks))} and {', '.join(sorted(there.networks))}"
        return warned(name, f"{bridge_name} seems to be two networks: {networks}.", look)
    return warned(name, f"Nothing tells whether {bridge_name} is the same network there.", look)
