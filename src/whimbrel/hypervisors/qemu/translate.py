"""Between whimbrel's words and QEMU's: settings one way, figures the other.

Sources: qapi/migration.json of QEMU 10.0 for names, units and defaults.
"""

from collections.abc import Mapping
from typing import Any

from whimbrel.errors import ProtocolError
from whimbrel.model.inventory import Capability, MigrationAddress
from whimbrel.model.method import Codec, Compression, Transport, Tuning
from whimbrel.model.migration import Observation, Phase
from whimbrel.ports import Ended

MIGRATION_CAPABILITIES: dict[Capability, str] = {
    Capability.PASS_EVENTS: "events",
    Capability.RETURN_PATH: "return-path",
    Capability.MULTICHANNEL: "multifd",
    Capability.XBZRLE: "xbzrle",
    Capability.THROTTLING: "auto-converge",
    Capability.POSTCOPY: "postcopy-ram",
    Capability.POSTCOPY_PREEMPT: "postcopy-preempt",
    Capability.PAUSE_BEFORE_SWITCHOVER: "pause-before-switchover",
    Capability.RDMA_PIN_ALL: "rdma-pin-all",
    Capability.ZERO_COPY: "zero-copy-send",
}
"""Capabilities that QEMU switches by name."""

_PHASES = {
    "none": Phase.IDLE,
    "setup": Phase.SETUP,
    "wait-unplug": Phase.SETUP,
    "active": Phase.PRECOPY,
    "pre-switchover": Phase.SWITCHOVER,
    "device": Phase.SWITCHOVER,
    "postcopy-device": Phase.POSTCOPY,
    "postcopy-active": Phase.POSTCOPY,
    "postcopy-paused": Phase.POSTCOPY_PAUSED,
    "postcopy-recover-setup": Phase.POSTCOPY_PAUSED,
    "postcopy-recover": Phase.POSTCOPY_PAUSED,
    "cancelling": Phase.CANCELLING,
    "cancelled": Phase.CANCELLED,
    "completed": Phase.COMPLETED,
    "failed": Phase.FAILED,
}


def phase_of(status: str) -> Phase:
    """Return the phase for QEMU's migration status; `ProtocolError` for one we do not know."""
    try:
        return _PHASES[status]
    except KeyError:
        raise ProtocolError(f'QEMU reports the unknown migration status "{status}".') from None


def capabilities_for(tuning: Tuning, known: frozenset[Capability]) -> list[dict[str, Any]]:
    """Return the argument of migrate-set-capabilities: each one this QEMU knows, on or off."""
    return [
        {"capability": name, "state": capability in tuning.needs}
        for capability, name in MIGRATION_CAPABILITIES.items()
        if capability in known
    ]


def parameters_for(tuning: Tuning) -> dict[str, Any]:
    """Return the arguments of migrate-set-parameters; what is not in it stays as QEMU comes."""
    parameters: dict[str, Any] = {"downtime-limit": round(tuning.downtime_limit * 1000)}
    if not tuning.as_qemu_comes:
        parameters |= limit_parameters(tuning.bandwidth_limit)
    if tuning.channels is not None:
        parameters["multifd-channels"] = tuning.channels
    if tuning.compression is not None:
        parameters |= _compression(tuning.compression)
    if tuning.xbzrle_cache is not None:
        parameters["xbzrle-cache-size"] = tuning.xbzrle_cache
    if tuning.switchover_bandwidth is not None:
        parameters["avail-switchover-bandwidth"] = round(tuning.switchover_bandwidth)
    return parameters


def limit_parameters(rate: float | None) -> dict[str, int]:
    """Return the bandwidth limit for pre-copy and post-copy alike; QEMU reads 0 as none.

    Post-copy has a limit of its own, unlimited by default, which would silently break a
    limit set for a converged network.
    """
    limit = 0 if rate is None else max(1, round(rate))
    return {"max-bandwidth": limit, "max-postcopy-bandwidth": limit}


def channels_argument(address: MigrationAddress, transport: Transport) -> list[dict[str, Any]]:
    """Return the argument `channels` of migrate and migrate-incoming.

    Where a destination may choose among some ports, QEMU takes the first that is free.
    """
    place: dict[str, Any] = {"host": address.host, "port": str(address.port)}
    if address.ports is not None and not address.port and transport is not Transport.RDMA:
        place |= {"port": str(address.ports[0]), "to": address.ports[1]}
    if transport is Transport.RDMA:
        place["transport"] = "rdma"
    else:
        place |= {"transport": "socket", "type": "inet"}
        if address.mptcp:
            place["mptcp"] = True
    return [{"channel-type": "main", "addr": place}]


def recover_uri(address: MigrationAddress) -> str:
    """Return the argument of migrate-recover, which knows no channels."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"tcp:{host}:{address.port}" + (",mptcp=on" if address.mptcp else "")


def observation_from(answer: Mapping[str, Any], at: float, phase: Phase) -> Observation:
    """Read query-migrate's answer; figures that QEMU leaves out are 0."""
    ram = answer.get("ram", {})
    page = ram.get("page-size", 4096)
    expected = answer.get("expected-downtime")
    return Observation(
        at=at,
        phase=phase,
        transferred=ram.get("transferred", 0),
        remaining=ram.get("remaining", 0),
        total=ram.get("total", 0),
        bandwidth=ram.get("mbps", 0.0) * 1e6 / 8,
        dirty_rate=float(ram.get("dirty-pages-rate", 0) * page),
        passes=ram.get("dirty-sync-count", 0),
        throttle=answer.get("cpu-throttle-percentage", 0) / 100,
        normal_pages=ram.get("normal", 0),
        zero_pages=ram.get("duplicate", 0),
        expected_downtime=None if expected is None else expected / 1000,
    )


def ended_from(answer: Mapping[str, Any], phase: Phase) -> Ended:
    """Read the last query-migrate; times arrive in milliseconds."""
    ram = answer.get("ram", {})
    return Ended(
        phase=phase,
        reason=str(answer.get("error-desc", "")),
        total_time=_seconds(answer.get("total-time")),
        setup_time=_seconds(answer.get("setup-time")),
        downtime=_seconds(answer.get("downtime")),
        transferred=ram.get("transferred"),
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _compression(compression: Compression) -> dict[str, Any]:
    found: dict[str, Any] = {"multifd-compression": compression.codec.value}
    if compression.codec in _LEVELS:
        found[_LEVELS[compression.codec]] = compression.level
    return found


_LEVELS = {
    Codec.ZLIB: "multifd-zlib-level",
    Codec.ZSTD: "multifd-zstd-level",
    Codec.QATZIP: "multifd-qatzip-level",
}
"""The parameters for levels; qpl and uadk have none (qapi/migration.json)."""
