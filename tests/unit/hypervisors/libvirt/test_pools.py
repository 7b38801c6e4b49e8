"""Disks that are volumes of pools: what lies behind them, and whether the destination has it."""

from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree as Tree  # noqa: ICN001

import pytest

from whimbrel.errors import Unsupported
from whimbrel.hypervisors.libvirt.checks import in_virsh, own_checks
from whimbrel.hypervisors.libvirt.disk_calls import DiskCalls
from whimbrel.hypervisors.libvirt.disk_places import VolumeSeen
from whimbrel.hypervisors.libvirt.disk_xml import disks_seen
from whimbrel.hypervisors.libvirt.facts import Told, machine_facts
from whimbrel.hypervisors.libvirt.pool_calls import PoolCalls
from whimbrel.model.check import Check, Result, failed, passed
from whimbrel.model.inventory import Vm

if TYPE_CHECKING:
    from collections.abc import Callable

    from whimbrel.hypervisors.libvirt.host import LibvirtHost
    from whimbrel.hypervisors.libvirt.machine import LibvirtMachine

LIVE = """\
<domain type="qemu"><name>web</name><os><type machine="pc-q35-10.0">hvm</type></os><devices>
<disk type="volume" device="disk"><driver name="qemu" type="qcow2"/>
<source pool="default" volume="web.qcow2"{mode} index="1"/>
<backingStore type="file"><format type="raw"/><source file="/a/base.raw"/></backingStore>
<target dev="vda" bus="virtio"/></disk></devices></domain>
"""
HERE = VolumeSeen(active=True, path="/var/lib/libvirt/images/web.qcow2")


class Connection(PoolCalls):
    """A libvirt with some pools, made of what libvirt-python has."""

    def __init__(self, *pools: "Pool", refuses: bool = False) -> None:
        self._handle = self
        self._pools, self._refuses = pools, refuses
        self.asked = 0

    async def call(self, work: "Callable[..., Any]", *arguments: Any) -> Any:
        self.asked += 1
        return work(*arguments)

    def listAllStoragePools(self, flags: int) -> list["Pool"]:  # noqa: N802 - libvirt's name
        assert flags == 0
        if self._refuses:
            raise Unsupported("no storage driver")
        return list(self._pools)

    async def domains(self) -> list[Any]:
        return []


class Pool:
    """One pool; `volumes`: path and kind of each by its name."""

    def __init__(
        self,
        name: str = "default",
        volumes: dict[str, tuple[str, int]] | None = None,
        *,
        kind: str = "dir",
        active: bool = True,
    ) -> None:
        self._name, self._volumes = name, volumes or {}
        self._kind, self._active = kind, active

    def name(self) -> str:
        return self._name

    def XMLDesc(self, flags: int) -> str:  # noqa: N802 - libvirt's name
        assert flags == 0
        return (
            f"<pool type='{self._kind}'><source><host name='10.0.0.9' port='3260'/>"
            "<device path='iqn.2026-01.org.example:db'/></source></pool>"
        )

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return int(self._active)

    def listAllVolumes(self, flags: int) -> list["One"]:  # noqa: N802 - libvirt's name
        assert (flags, self._active) == (0, True)
        return [One(name, *what) for name, what in self._volumes.items()]


class One:
    """One volume."""

    def __init__(self, name: str, path: str, kind: int) -> None:
        self._name, self._path, self._kind = name, path, kind

    def name(self) -> str:
        return self._name

    def path(self) -> str:
        return self._path

    def info(self) -> list[int]:
        return [self._kind, 0, 0]


class Domain(DiskCalls):
    """A VM with these disks."""

    name, id = "web", "1"

    def __init__(self, connection: PoolCalls, xml: str = LIVE.format(mode="")) -> None:
        self.connection = connection
        self._xml = xml

    async def xml(self, *, movable: bool = False) -> str:
        del movable
        return self._xml

    async def persistent(self) -> bool:
        return True

    async def _call(self, work: "Callable[..., Any]", *arguments: Any) -> Any:
        return work(*arguments)


FILE = {"web.qcow2": (HERE.path, 0)}


async def test_a_volume_is_the_file_behind_it_with_the_chain_that_it_has() -> None:
    [disk] = disks_seen(await Domain(Connection(Pool("other"), Pool(volumes=FILE))).found_xml())
    assert disk.chain == ((HERE.path, "qcow2"), ("/a/base.raw", "raw"))


async def test_a_volume_of_a_block_pool_is_a_device() -> None:
    pool = Pool(volumes={"web.qcow2": ("/dev/vg/web", 1)}, kind="logical")
    xml = await Domain(Connection(pool)).found_xml()
    made = Tree.fromstring(xml).find("devices/disk")  # noqa: S314
    assert made is not None
    assert made.get("type") == "block"
    assert disks_seen(xml)[0].chain[0][0] == "/dev/vg/web"


@pytest.mark.parametrize(("kind", "mode"), [("iscsi", "direct"), ("iscsi-direct", "")])
async def test_a_unit_that_qemu_opens_by_itself_is_an_address(kind: str, mode: str) -> None:
    pool = Pool(volumes={"unit:0:0:2": ("/dev/disk/by-path/x", 1)}, kind=kind)
    live = LIVE.format(mode=f' mode="{mode}"' if mode else "").replace("web.qcow2", "unit:0:0:2")
    [disk] = disks_seen(await Domain(Connection(pool), live).found_xml())
    assert disk.chain[0][0] == "iscsi://10.0.0.9/iqn.2026-01.org.example:db/2"


async def test_a_unit_that_the_host_has_attached_is_its_device() -> None:
    pool = Pool(volumes={"unit:0:0:2": ("/dev/disk/by-path/x", 1)}, kind="iscsi")
    live = LIVE.format(mode=' mode="host"').replace("web.qcow2", "unit:0:0:2")
    [disk] = disks_seen(await Domain(Connection(pool), live).found_xml())
    assert disk.chain[0][0] == "/dev/disk/by-path/x"


async def test_a_vm_without_volumes_needs_no_pools() -> None:
    connection = Connection(refuses=True)
    xml = LIVE.format(mode="").replace('type="volume"', 'type="file"')
    assert await Domain(connection, xml).found_xml() == xml
    assert connection.asked == 0


@pytest.mark.parametrize(
    "connection",
    [Connection(), Connection(refuses=True), Connection(Pool(active=False)), Connection(Pool())],
    ids=["no pool", "no storage driver", "inactive", "no volume"],
)
async def test_a_volume_that_is_not_found_keeps_its_vm_with_a_remedy(connection: Any) -> None:
    facts = machine_facts(await Domain(connection).found_xml(), Told(10000002, "11.3.0"))
    assert "vda is the volume web.qcow2 of the pool default" in facts.blocked[0]
    assert await remedy(facts.blocked[0]) == "virsh pool-start default; virsh pool-refresh default"


async def remedy(reason: str) -> str:
    said = failed("migration blockers", f"QEMU refuses to move it: {reason}.", "QMP")
    return next(iter(in_virsh([said], "web"))).remedy


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        ("<disk type='dir'><source dir='/srv/x'/><target dev='vdz'/></disk>", "/srv/x"),
        ("<disk type='nvme'><source type='pci'/><target dev='vdz'/></disk>", "NVMe"),
    ],
)
async def test_a_disk_that_belongs_to_its_host_is_refused_with_a_remedy(
    disk: str, said: str
) -> None:
    xml = LIVE.format(mode="").replace('type="volume"', 'type="file"')
    facts = machine_facts(xml.replace("<devices>", f"<devices>{disk}"), Told(10000002, "11.3.0"))
    [reason] = facts.blocked
    assert said in reason
    assert (await remedy(reason)).startswith("virsh detach-disk web vdz --live")


class Machine:
    vm, host = Vm("web", 0), "a"

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    async def domain(self) -> Domain:
        return self._domain


class Host:
    name = "b"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def connection(self) -> Connection:
        return self._connection


async def judged(there: Connection, *others: Check, xml: str = LIVE.format(mode="")) -> list[Check]:
    machine = Machine(Domain(Connection(Pool(volumes=FILE)), xml))
    checks = await own_checks(
        cast("LibvirtMachine", cast("Any", machine)),
        cast("LibvirtHost", cast("Any", Host(there))),
        others,
    )
    return [each for each in checks if each.name.startswith("disk ")]


@pytest.mark.parametrize(
    ("there", "said", "mends"),
    [
        (Connection(), "b has no pool default", "pool-define"),
        (Connection(refuses=True), "b has no pool default", "pool-define"),
        (Connection(Pool(active=False)), "is not active", "pool-start"),
        (Connection(Pool()), "knows no volume web.qcow2", "pool-refresh"),
        (Connection(Pool(volumes={"web.qcow2": ("/b/web", 0)})), "/b/web", "pool-edit"),
    ],
)
async def test_a_destination_must_have_the_volume_in_a_pool_of_that_name(
    there: Connection, said: str, mends: str
) -> None:
    [check] = await judged(there)
    assert check.result is Result.FAIL
    assert check.name == "disk vda: pool"
    assert said in check.detail
    assert mends in check.remedy
    assert "--storage vda=FOLDER" in check.remedy


async def test_a_destination_that_has_it_is_said_to() -> None:
    [check] = await judged(Connection(Pool(volumes=FILE)))
    assert check.result is Result.PASS
    assert HERE.path in check.detail


async def test_of_a_disk_that_is_copied_along_the_pool_does_not_matter() -> None:
    assert await judged(Connection(), passed("disk vda: place", "It can be made.")) == []


async def test_an_encrypted_disk_is_not_copied_along() -> None:
    xml = LIVE.format(mode="").replace("<target", "<encryption format='luks'/><target")
    [check] = await judged(Connection(), passed("disk vda: place", "It can be made."), xml=xml)
    assert (check.name, check.result) == ("disk vda: encryption", Result.FAIL)
