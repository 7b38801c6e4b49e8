"""Between whimbrel's words and libvirt's: settings one way, figures the other.

Sources: include/libvirt/libvirt-domain.h of libvirt 11.3 for names and units. Parameters are
left out where libvirt's own default is meant; not the bandwidth, since libvirt keeps a limit
that was set during an earlier move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whimbrel.model.inventory import Capability
from whimbrel.model.method import Postcopy, Transport, Tuning
from whimbrel.model.migration import Observation, Phase
from whimbrel.model.storage import Extent
from whimbrel.model.units import MIB
from whimbrel.ports import Ended

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whimbrel.hypervisors.libvirt.states import Versions
    from whimbrel.model.inventory import MigrationAddress

QEMU_CAP = 128
"""MiB/s that plain QEMU sends at most unless told otherwise; libvirt lifts that."""

NO_LIMIT = 8796093022207
"""MiB/s that libvirt takes for no limit (QEMU_DOMAIN_MIG_BANDWIDTH_MAX)."""

_RUNNING_JOBS = {1, 2}
"""virDomainJobType: bounded and unbounded."""


@dataclass(frozen=True)
class Luggage:
    """Disks that libvirt copies as a part of its move.

    Attributes:
        targets: As the guest's definition names them (vda).
        extent: How much of each chain.
        port: Where the destination takes them; 0 lets libvirt choose.
        sparse: Whether zeros are looked for, so that holes stay holes (libvirt 10.9).
    """

    targets: tuple[str, ...]
    extent: Extent = Extent.WHOLE
    port: int = 0
    sparse: bool = False


def needs(tuning: Tuning) -> frozenset[Capability]:
    """Return what a tuning needs of libvirt, which encrypts with certificates and nothing else."""
    if not tuning.encrypted:
        return tuning.needs
    return tuning.needs - {Capability.TLS_PSK} | {Capability.TLS_X509}


def flags_for(
    tuning: Tuning,
    *,
    persistent: bool = False,
    encrypted: bool = False,
    luggage: Luggage | None = None,
) -> frozenset[str]:
    """Return the flags of a move, as libvirt names them without VIR_MIGRATE_.

    The guest is left standing at the destination until it may run, except where post-copy may
    begin: then libvirt lets it run there itself, as soon as the source has stopped it for good.

    Args:
        tuning: Its settings.
        persistent: Whether libvirt remembers the VM beyond its end.
        encrypted: Whether it goes through TLS, its disks as well.
        luggage: The disks that go along. What the guest writes waits for its copy: libvirt can
            only be told beforehand, and a copy that the guest outruns would never end.
    """
    flags = {"LIVE", "CHANGE_PROTECTION", "ABORT_ON_ERROR"}
    flags |= {"PAUSED"} if tuning.postcopy is Postcopy.NEVER else {"POSTCOPY"}
    if tuning.channels is not None:
        flags.add("PARALLEL")
    if tuning.compression is not None or tuning.xbzrle_cache is not None:
        flags.add("COMPRESSED")
    if tuning.throttling:
        flags.add("AUTO_CONVERGE")
    if tuning.pin_all:
        flags.add("RDMA_PIN_ALL")
    if tuning.zero_copy:
        flags.add("ZEROCOPY")
    if encrypted:
        flags.add("TLS")
    if luggage is not None:
        flags.add("NON_SHARED_INC" if luggage.extent is Extent.TOP else "NON_SHARED_DISK")
        flags.add("NON_SHARED_SYNCHRONOUS_WRITES")
    if persistent:
        flags |= {"PERSIST_DEST", "UNDEFINE_SOURCE"}
    return frozenset(flags)


def parameters_for(tuning: Tuning) -> dict[str, Any]:
    """Return the typed parameters that a tuning stands for."""
    parameters: dict[str, Any] = {}
    limit = QEMU_CAP if tuning.as_qemu_comes else mebibytes(tuning.bandwidth_limit)
    parameters["bandwidth"] = limit
    if tuning.postcopy is not Postcopy.NEVER and tuning.bandwidth_limit is not None:
        parameters["bandwidth.postcopy"] = limit
    if tuning.channels is not None:
        parameters["parallel.connections"] = tuning.channels
    if tuning.compression is not None:
        codec = tuning.compression.codec
        parameters["compression"] = codec.value
        parameters[f"compression.{codec.value}.level"] = tuning.compression.level
    if tuning.xbzrle_cache is not None:
        parameters["compression"] = "xbzrle"
        parameters["compression.xbzrle.cache"] = tuning.xbzrle_cache
    if tuning.switchover_bandwidth is not None:
        parameters["bandwidth.avail.switchover"] = mebibytes(tuning.switchover_bandwidth)
    return parameters


def address_parameters(
    address: MigrationAddress, transport: Transport = Transport.TCP, luggage: Luggage | None = None
) -> dict[str, Any]:
    """Return the typed parameters that name where the destination listens, and only there.

    Disks whose port libvirt chooses are taken at the same address; so is memory (port 0).
    """
    host = f"[{address.host}]" if ":" in address.host else address.host
    port = f":{address.port}" if address.port else ""
    parameters: dict[str, Any] = {
        "migrate_uri": f"{transport.value}://{host}{port}",
        "listen_address": address.host,
    }
    if address.credentials is not None and address.credentials.hostname:
        parameters["tls.destination"] = address.credentials.hostname
    if luggage is not None:
        parameters["migrate_disks"] = list(luggage.targets)
        if luggage.sparse:
            parameters["migrate_disks_detect_zeroes"] = list(luggage.targets)
        if luggage.port:
            parameters["disks_uri"] = f"tcp://{host}:{luggage.port}"
    return parameters


def mebibytes(rate: float | None) -> int:
    """Return a limit as libvirt counts it: whole MiB/s, at least one; None: no limit."""
    return NO_LIMIT if rate is None else max(1, round(rate / MIB))


def milliseconds(seconds: float) -> int:
    """Return a downtime limit as libvirt counts it."""
    return max(1, round(seconds * 1000))


def lacking(versions: Versions) -> dict[Capability, str]:
    """Return the reason for every capability that cannot be had through this libvirt."""
    return dict(_NOT_REACHED) | {
        capability: reason
        for capability, (daemon, hypervisor) in _SINCE.items()
        if (reason := _too_old(versions, daemon, hypervisor))
    }


_NO_ACCELERATOR = "libvirt knows zlib and zstd only (virsh migrate --comp-methods)"
_NOT_REACHED = {
    Capability.MPTCP: "libvirt's migration addresses have no word for MPTCP",
    Capability.QPL: _NO_ACCELERATOR,
    Capability.UADK: _NO_ACCELERATOR,
    Capability.QATZIP: _NO_ACCELERATOR,
    Capability.FREE_PAGE_HINTS: "libvirt does not know virtio-balloon's free-page-hint",
    Capability.PAUSE_BEFORE_SWITCHOVER: "libvirt pauses before switchover and goes on by itself",
    Capability.TLS_PSK: "libvirt encrypts with certificates only, never with a key per move",
}

FINDS_ZEROS = 10009000
"""The first libvirt that finds zeros in disks as it copies them to another host."""

# The first libvirt on the host and the first QEMU below it that have it.
_SINCE = {
    Capability.PASS_EVENTS: (1003002, 2004000),
    Capability.RETURN_PATH: (1003003, 2010000),
    Capability.MULTICHANNEL: (5002000, 4000000),
    Capability.ZLIB: (9004000, 5000000),
    Capability.ZSTD: (9004000, 5000000),
    Capability.XBZRLE: (1003004, 1002000),
    Capability.RDMA: (1002009, 2000000),
    Capability.RDMA_PIN_ALL: (1002009, 2000000),
    Capability.ZERO_COPY: (8005000, 7001000),
    Capability.TLS_X509: (6000000, 2007000),
    Capability.THROTTLING: (2000000, 1006000),
    Capability.POSTCOPY: (1003003, 2006000),
    Capability.POSTCOPY_PREEMPT: (9000000, 7001000),
    Capability.PREPARED_MEMORY: (8002000, 5000000),
    Capability.SWITCHOVER_BANDWIDTH: (11001000, 8002000),
}


def _too_old(versions: Versions, daemon: int, hypervisor: int) -> str:
    if min(versions.daemon, versions.library) < daemon:
        here = "on that host" if versions.daemon < daemon else "on this machine"
        old = min(versions.daemon, versions.library)
        return f"needs libvirt {dotted(daemon)}; {here} it is {dotted(old)}"
    if versions.hypervisor < hypervisor:
        return f"needs QEMU {dotted(hypervisor)}; this is {dotted(versions.hypervisor)}"
    return ""


def dotted(number: int) -> str:
    """Return a version as people write it: 11003000 is 11.3.0."""
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"


def under_way(job: Mapping[str, Any]) -> bool:
    """Tell whether a VM's job goes on."""
    return job.get("type") in _RUNNING_JOBS


def has_memory(job: Mapping[str, Any]) -> bool:
    """Tell whether a move's figures have come: libvirt says zeros before."""
    return bool(job.get("memory_total"))


def has_disks(job: Mapping[str, Any]) -> bool:
    """Tell whether a move copies disks."""
    return bool(job.get("disk_total"))


def observation_from(job: Mapping[str, Any], at: float, phase: Phase) -> Observation:
    """Read a job's figures; those that libvirt leaves out are 0."""
    page = job.get("memory_page_size", 4096)
    expected = job.get("downtime")
    return Observation(
        at=at,
        phase=phase,
        transferred=job.get("memory_processed", 0),
        remaining=job.get("memory_remaining", 0),
        total=job.get("memory_total", 0),
        bandwidth=float(job.get("memory_bps", 0)),
        dirty_rate=float(job.get("memory_dirty_rate", 0) * page),
        passes=job.get("memory_iteration", 0),
        throttle=job.get("auto_converge_throttle", 0) / 100,
        normal_pages=job.get("memory_normal", 0),
        zero_pages=job.get("memory_constant", 0),
        expected_downtime=None if expected is None else expected / 1000,
    )


def ended_from(job: Mapping[str, Any]) -> Ended:
    """Read the figures of a move that is done; times arrive in milliseconds.

    Those "net" leave out how far both hosts' clocks are apart.
    """
    return Ended(
        phase=Phase.COMPLETED,
        total_time=_seconds(job.get("time_elapsed_net", job.get("time_elapsed"))),
        setup_time=_seconds(job.get("setup_time")),
        downtime=_seconds(job.get("downtime_net", job.get("downtime"))),
        transferred=job.get("memory_processed"),
    )


def _seconds(figure: int | None) -> float | None:
    return None if figure is None else figure / 1000
