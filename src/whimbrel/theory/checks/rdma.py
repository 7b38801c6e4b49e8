"""The check of RDMA: devices, and on the NICs that the move goes by; memory that may be pinned."""

from whimbrel.model.check import Check, failed, passed
from whimbrel.model.inventory import Vm
from whimbrel.model.method import Tuning, rdma_refusal
from whimbrel.model.preflight import HostFacts, RdmaFacts
from whimbrel.model.units import format_size
from whimbrel.model.wording import listed

RDMA = "RDMA"
"""Name of the check."""


def rdma(vm: Vm, tuning: Tuning, source: HostFacts, destination: HostFacts) -> Check:
    """Fail where RDMA has no device, may not pin the guest's memory, or cannot be had so."""
    refusal = rdma_refusal(tuning)
    if refusal is not None:
        return failed(RDMA, *refusal)
    for host in (source, destination):
        if not host.rdma:
            return failed(
                RDMA,
                f"{host.name} has no RDMA device.",
                f"rdma link add rxe0 type rxe netdev NIC   # on {host.name}; or another --method",
            )
        if host.memlock is not None and host.memlock < vm.memory:
            return failed(
                RDMA,
                f"On {host.name} only {format_size(host.memlock)} may be pinned; "
                f"the guest has {format_size(vm.memory)}.",
                f"ulimit -l unlimited   # on {host.name}, or memlock in /etc/security/limits.conf",
            )
    return passed(RDMA, "Both hosts have an RDMA device and may pin the guest's memory.")


def rdma_on_the_way(
    source: RdmaFacts, destination: RdmaFacts, names: tuple[str, str], address: str
) -> Check:
    """Fail where the NIC that a move goes by has no RDMA device, or none that is active.

    The kernel takes the device of the NIC that has the address (rdma_cm; cma.c). What it does not
    say is not held against a host.

    Args:
        source: The devices of the source, and its NIC on the way.
        destination: Those of the destination.
        names: The hosts', source and destination.
        address: The migration address, as it was given.
    """
    places = (
        f"{names[0]} reaches {address} over {source.interface}",
        f"On {names[1]} the migration address {address} is on {destination.interface}",
    )
    for facts, name, place in zip((source, destination), names, places, strict=True):
        own = _own(facts)
        if own is None:
            continue
        if not own:
            return failed(
                RDMA,
                f"{place}, which has no RDMA device ({_elsewhere(facts)}).",
                f"rdma link add rxe_{facts.interface} type rxe netdev {facts.interface}   "
                f"# on {name}; or an address of {_others(facts)} in whimbrel.toml, or another "
                "--method",
            )
        if not own & facts.active:
            return failed(
                RDMA,
                f"{place}, whose RDMA device {listed(sorted(own))} is not active.",
                f"rdma link   # on {name}, says why; or another --method",
            )
    return passed(
        RDMA,
        "Both hosts have an RDMA device on the NIC of the move and may pin the guest's memory.",
    )


def _own(facts: RdmaFacts) -> set[str] | None:
    """Return the devices of the NIC that the move goes by; None where that is not known."""
    if not facts.interface or not all(facts.nics.values()):
        return None
    return {device for device, nics in facts.nics.items() if facts.interface in nics}


def _elsewhere(facts: RdmaFacts) -> str:
    found = facts.nics.items()
    return "; ".join(f"{device} is on {listed(sorted(nics))}" for device, nics in found)


def _others(facts: RdmaFacts) -> str:
    return listed(sorted({nic for nics in facts.nics.values() for nic in nics}))
