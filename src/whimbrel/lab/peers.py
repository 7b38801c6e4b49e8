"""What others set, and who conducts their moves, as data; each with its source.

What is emulated on plain QEMU, and what is left out, stands in docs/peers.md. Every preset is
held to what its product does by default, or by the flags that its own documents recommend.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from whimbrel.lab.habits import Doubling, Habit, Stalling, Stepping, Timing, Waiting
from whimbrel.model.method import Method, Postcopy, Tuning
from whimbrel.model.migration import Cancel, SetDowntimeLimit, StartPostcopy
from whimbrel.model.scenario import Scenario
from whimbrel.model.units import GIB, MIB
from whimbrel.theory.peers import Peer


class Way(StrEnum):
    """What carries out a preset's moves."""

    WHIMBREL = "whimbrel"
    QEMU = "qemu"
    SSH = "ssh"
    VIRSH = "virsh"
    LIBVIRT = "libvirt"

    @property
    def by_libvirt(self) -> bool:
        """Whether its guests are run by libvirt."""
        return self in {Way.VIRSH, Way.LIBVIRT}


@dataclass(frozen=True)
class Preset:
    """One way to move a guest.

    Attributes:
        peer: Whose it is.
        way: What carries it out.
        method: The method it comes closest to, for lab.json.
        tuning: What QEMU is set to, for a scenario.
        habit: Who conducts the move; None: whimbrel's own control, as the tuning says.
        flags: What is added to `virsh migrate --live`.
    """

    peer: Peer
    way: Way
    method: Method
    tuning: Callable[[Scenario], Tuning]
    habit: Callable[[Scenario], Habit] | None = None
    flags: tuple[str, ...] = ()


QEMU_PROXMOX = "proxmox/qemu-server:src/PVE/QemuMigrate.pm (phase2)"
KUBEVIRT = "kubevirt/kubevirt:pkg/virt-launcher/virtwrap/live-migration-source.go"
NOVA = "openstack/nova:nova/virt/libvirt/migration.py (downtime_steps), nova/conf/libvirt.py"
OVIRT = (
    "oVirt/ovirt-engine:packaging/dbscripts/upgrade/pre_upgrade/0000_config.sql "
    "(MigrationPolicies), oVirt/vdsm:lib/vdsm/virt/migration.py (MonitorThread)"
)
GANETI = "ganeti/ganeti:lib/hypervisor/hv_kvm/__init__.py (HV_MIGRATION_BANDWIDTH, _DOWNTIME)"
VIRSH = "virsh(1), migrate"

_PROXMOX_RATE = 16.0 * GIB
_NIC = 10e9 / 8
"""Bytes per second that a veth without a shape says it carries."""

_PARALLEL = 4


def _set(**settings: object) -> Callable[[Scenario], Tuning]:
    tuning = Tuning(**settings)  # type: ignore[arg-type] # names and types are those of Tuning
    return lambda _: tuning


def _proxmox(scenario: Scenario) -> Tuning:
    tenth = scenario.guest.memory // 10
    return Tuning(
        xbzrle_cache=1 << (tenth - 1).bit_length(),
        throttling=True,
        bandwidth_limit=_PROXMOX_RATE,
        downtime_limit=0.1,
    )


def _ovirt(at_once: int, *, xbzrle: bool, postcopy: bool = False) -> Callable[[Scenario], Tuning]:
    """Return what oVirt sets where so many moves may run at once: its share of the network."""

    def tuning(scenario: Scenario) -> Tuning:
        megabits = (scenario.link.rate or _NIC) * 8 / 1e6
        return Tuning(
            xbzrle_cache=64 * MIB if xbzrle else None,
            throttling=True,
            postcopy=Postcopy.IF_STALLED if postcopy else Postcopy.NEVER,
            bandwidth_limit=float(int(megabits) // at_once // 8 * MIB),
            downtime_limit=0.1,
        )

    return tuning


_LADDER = (
    (1, SetDowntimeLimit(0.15)),
    (2, SetDowntimeLimit(0.2)),
    (3, SetDowntimeLimit(0.3)),
    (4, SetDowntimeLimit(0.4)),
    (6, SetDowntimeLimit(0.5)),
)


def _libvirt(name: str, words: str, flags: tuple[str, ...], *, default: bool = False) -> Peer:
    text = f"virsh migrate --live {' '.join(flags)}".strip()
    return Peer(name, "libvirt", default, f"{text}{words}", VIRSH)


_LIBVIRT = (
    ("", (), Method.TCP, _set()),
    (" auto-converge", ("--auto-converge",), Method.AUTO_CONVERGE, _set(throttling=True)),
    (
        " parallel",
        ("--parallel", "--parallel-connections", str(_PARALLEL)),
        Method.MULTICHANNEL,
        _set(channels=_PARALLEL),
    ),
    (
        " postcopy",
        ("--postcopy", "--postcopy-after-precopy"),
        Method.POSTCOPY,
        _set(postcopy=Postcopy.AFTER_FIRST_PASS),
    ),
)


def _virsh_presets() -> tuple[Preset, ...]:
    """Return libvirt's for real, by virsh and libvirtd."""
    return tuple(
        Preset(
            _libvirt(f"virsh{name}", ", for real", flags, default=not flags),
            Way.VIRSH,
            method,
            tuning,
            flags=flags,
        )
        for name, flags, method, tuning in _LIBVIRT
    )


def _libvirt_presets() -> tuple[Preset, ...]:
    """Return the same settings on plain QEMU."""
    return tuple(
        Preset(
            _libvirt(f"libvirt{name}", ", as set on plain QEMU", flags, default=not flags),
            Way.QEMU,
            method,
            tuning,
            None if method is Method.POSTCOPY else lambda _: Waiting(),
        )
        for name, flags, method, tuning in _LIBVIRT
    )


def _proxmox_presets() -> tuple[Preset, ...]:
    words = "XBZRLE and auto-converge, 100 ms, doubled whenever what remains keeps growing"
    ways = (("proxmox", "through ssh", Way.SSH), ("proxmox insecure", "not encrypted", Way.QEMU))
    return tuple(
        Preset(
            Peer(name, "Proxmox VE", way is Way.SSH, f"{words}; {how}", QEMU_PROXMOX),
            way,
            Method.XBZRLE,
            _proxmox,
            lambda _: Doubling(0.1),
        )
        for name, how, way in ways
    )


def _kubevirt_presets() -> tuple[Preset, ...]:
    plain = "8 channels; cancelled after 150 s for each begun GB"
    pulled = "one stream; post-copy after 150 s for each begun GB"
    return (
        Preset(
            Peer("kubevirt", "KubeVirt", True, plain, KUBEVIRT),
            Way.QEMU,
            Method.MULTICHANNEL,
            _set(channels=8),
            lambda scenario: Timing(scenario.guest.memory, postcopy=False),
        ),
        Preset(
            Peer("kubevirt postcopy", "KubeVirt", False, pulled, f"{KUBEVIRT} (allowPostCopy)"),
            Way.QEMU,
            Method.TCP,
            _set(postcopy=Postcopy.IF_STALLED),
            lambda scenario: Timing(scenario.guest.memory, postcopy=True),
        ),
    )


def _nova_preset() -> Preset:
    words = "50 ms, then ten steps up to 500 ms, one each 75 s and GiB (2 GiB at least)"
    return Preset(
        Peer("nova", "OpenStack Nova", True, words, NOVA),
        Way.QEMU,
        Method.TCP,
        _set(),
        lambda scenario: Stepping(scenario.guest.memory),
    )


def _ovirt_presets() -> tuple[Preset, ...]:
    ends = (
        ("ovirt", "Minimal downtime: 100 to 500 ms as it stalls, then given up", True),
        ("ovirt suspend", "Suspend workload if needed: the same, then 5 s, then given up", False),
        ("ovirt postcopy", "Post-copy migration: 100 to 200 ms, then post-copy", False),
    )
    tunings = (
        _ovirt(2, xbzrle=False),
        _ovirt(1, xbzrle=True),
        _ovirt(2, xbzrle=False, postcopy=True),
    )
    steps = (
        (*_LADDER, (-1, Cancel())),
        (*_LADDER, (-1, SetDowntimeLimit(5.0)), (-1, Cancel())),
        (*_LADDER[:2], (-1, StartPostcopy()), (-1, Cancel())),
    )
    return tuple(
        Preset(
            Peer(name, "oVirt", default, words, OVIRT),
            Way.QEMU,
            Method.AUTO_CONVERGE,
            tuning,
            lambda _, ladder=ladder: Stalling(ladder),  # type: ignore[misc]
        )
        for (name, words, default), tuning, ladder in zip(ends, tunings, steps, strict=True)
    )


def _ganeti_preset() -> Preset:
    return Preset(
        Peer("ganeti", "Ganeti", True, "32 MiB/s, 30 ms, however long it takes", GANETI),
        Way.QEMU,
        Method.TCP,
        _set(bandwidth_limit=32.0 * MIB, downtime_limit=0.03),
        lambda _: Waiting(),
    )


def _whimbrel_presets() -> tuple[Preset, ...]:
    words = "auto: surveyed, predicted, chosen, guarded"
    ways = (
        ("whimbrel", "plain QEMU", Way.WHIMBREL),
        ("whimbrel on libvirt", "libvirt", Way.LIBVIRT),
    )
    return tuple(
        Preset(
            Peer(name, "whimbrel", False, f"{words}; on {where}", "docs/theory.md"),
            way,
            Method.AUTO,
            _set(),
        )
        for name, where, way in ways
    )


PRESETS = (
    *_whimbrel_presets(),
    *_virsh_presets(),
    *_libvirt_presets(),
    *_proxmox_presets(),
    *_kubevirt_presets(),
    _nova_preset(),
    *_ovirt_presets(),
    _ganeti_preset(),
)
"""Everyone, in the order of the table."""
