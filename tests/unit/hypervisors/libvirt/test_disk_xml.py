"""Disks in libvirt's XML: found, laid elsewhere, and copied."""

from xml.etree import ElementTree as Tree  # noqa: ICN001

import pytest

from whimbrel.errors import Unsupported
from whimbrel.hypervisors.libvirt.disk_xml import copy_xml, disks_seen
from whimbrel.hypervisors.libvirt.domain_xml import (
    at_destination,
    described,
    domain_xml,
    memory_limited,
)
from whimbrel.model.inventory import Disk, Vm
from whimbrel.model.units import MIB

LIVE = """\
<domain type="kvm"><name>web</name><memory>65536</memory><os><type machine="q35">hvm</type></os>
<devices>
<disk type="file" device="disk"><driver name="qemu" type="qcow2"/>
<source file="/a/top.qcow2" index="2"/>
<backingStore type="file" index="1"><format type="raw"/><source file="/a/base.raw"/><backingStore/>
</backingStore><mirror type="file" job="copy" ready="yes"><source file="/b/top.qcow2"/></mirror>
<target dev="vda" bus="virtio"/><alias name="virtio-disk0"/></disk>
<disk type="block" device="disk"><driver name="qemu" type="raw"/><source dev="/dev/vg/data"/>
<backingStore/><target dev="vdb" bus="virtio"/><readonly/><alias name="ua-data"/></disk>
<disk type="file" device="cdrom"><target dev="sda" bus="sata"/><readonly/></disk>
</devices></domain>
"""


def test_disks_are_seen_with_their_chains_and_their_copies() -> None:
    top, data = disks_seen(LIVE)
    assert (top.name, top.target) == ("vda", "vda")
    assert top.chain == (("/a/top.qcow2", "qcow2"), ("/a/base.raw", "raw"))
    assert (top.copy, top.in_step, top.read_only) == ("/b/top.qcow2", True, False)
    assert (data.name, data.target, data.chain) == ("data", "vdb", (("/dev/vg/data", "raw"),))
    assert (data.copy, data.in_step, data.read_only) == ("", False, True)


def test_a_disk_is_called_the_same_alive_and_defined() -> None:
    defined = LIVE.replace('<alias name="virtio-disk0"/>', "")
    assert [disk.name for disk in described(defined).disks] == ["vda", "data", "sda"]
    assert described(defined).disks == described(LIVE).disks


def test_a_disk_that_lies_elsewhere_at_the_destination_rests_on_what_its_image_says() -> None:
    there = at_destination(LIVE, None, None, {"vda": Disk("vda", "/dev/vg/web", "raw")})
    first, *others = Tree.fromstring(there).findall("devices/disk")  # noqa: S314
    assert first.attrib["type"] == "block"
    assert [source.attrib for source in first.findall("source")] == [{"dev": "/dev/vg/web"}]
    assert first.find("backingStore") is None
    before = Tree.fromstring(LIVE).findall("devices/disk")[1:]  # noqa: S314
    assert list(map(Tree.tostring, others)) == list(map(Tree.tostring, before))
    assert described(there).disks[0] == Disk("vda", "/dev/vg/web", "raw")


def test_zeros_become_holes_only_where_that_is_asked() -> None:
    disks = {"vda": Disk("vda", "/b/top.qcow2", "qcow2")}
    for sparse in (True, False):
        root = Tree.fromstring(at_destination(LIVE, None, None, disks, sparse=sparse))  # noqa: S314
        drivers = [made.get("discard") for made in root.findall("devices/disk/driver")]
        assert drivers == ["unmap" if sparse else None, None]


@pytest.mark.parametrize("flat", [True, False])
def test_a_whole_copy_rests_on_nothing_and_a_top_on_its_base(*, flat: bool) -> None:
    made = Tree.fromstring(copy_xml(Disk("vda", "/b/x.qcow2", "qcow2"), flat=flat))  # noqa: S314
    assert (made.get("type"), made.find("source") is not None) == ("file", True)
    assert (made.find("backingStore") is not None) is flat


NFS, ISCSI = "nfs://10.0.0.9/srv/vms/web.raw", "iscsi://10.0.0.9/iqn.2026-01.org.example:db/1"
SOURCES = {
    NFS: "<source protocol='nfs' name='/srv/vms/web.raw'><host name='10.0.0.9'/></source>",
    ISCSI: "<source protocol='iscsi' name='iqn.2026-01.org.example:db/1'>"
    "<host name='10.0.0.9' port='3260'/><auth username='x'/></source>",
    "iscsi://[fd00::9]:3261/iqn.2026-01.org.example:db/1": "<source protocol='iscsi' "
    "name='iqn.2026-01.org.example:db/1'><host name='fd00::9' port='3261'/></source>",
}


@pytest.mark.parametrize("address", SOURCES)
def test_an_address_is_told_to_libvirt_and_read_again_as_it_was(address: str) -> None:
    told = SOURCES[address]
    seen = f"<domain><devices><disk type='network'>{told}<target dev='vda'/></disk></devices>"
    [disk] = disks_seen(f"{seen}</domain>")
    assert disk.chain == ((address, "raw"),)
    [again] = disks_seen(
        f"<domain><devices>{copy_xml(Disk('x', address), flat=True)}</devices></domain>"
    )
    assert again.chain == disk.chain


def test_a_disk_that_goes_to_an_address_leaves_its_old_server_and_login_behind() -> None:
    old = "<disk type='network'><auth username='x'/><source protocol='rbd' name='pool/image'/>"
    xml = f"<domain><devices>{old}<target dev='vda'/></disk></devices></domain>"
    [made] = Tree.fromstring(at_destination(xml, None, None, {"vda": Disk("vda", NFS)}))[0]  # noqa: S314
    assert (made.get("type"), made.find("auth")) == ("network", None)
    assert [each.attrib for each in made.findall("source")] == [
        {"protocol": "nfs", "name": "/srv/vms/web.raw"}
    ]
    path = at_destination(xml, None, None, {"vda": Disk("vda", "/b/web.raw")})
    assert Tree.fromstring(path)[0][0].attrib == {"type": "file"}  # noqa: S314


@pytest.mark.parametrize(
    "place",
    [
        "http://10.0.0.9/image",
        "iscsi://somebody%secret@10.0.0.9/iqn.2026-01.org.example:db/1",
        "nfs://10.0.0.9:2050/srv/image",
        "nfs://10.0.0.9/srv/image?uid=5",
    ],
)
def test_what_libvirt_has_no_word_for_is_no_place(place: str) -> None:
    with pytest.raises(Unsupported, match="libvirt cannot be told of"):
        copy_xml(Disk("vda", place), flat=True)


@pytest.mark.parametrize("at", ["source", "disk"])
def test_an_encrypted_disk_is_not_copied_into_the_clear(at: str) -> None:
    luks = "<encryption format='luks'/>"
    inside, beside = (luks, "") if at == "source" else ("", luks)
    xml = f"""<domain><devices><disk type='file'><source file='/a'>{inside}</source>{beside}
        <target dev='vda'/></disk></devices></domain>"""
    assert disks_seen(xml)[0].encrypted
    with pytest.raises(Unsupported, match="encrypted"):
        at_destination(xml, None, None, {"vda": Disk("vda", "/b")})
    assert not disks_seen(LIVE)[0].encrypted


def test_a_hard_limit_of_memory_is_seen() -> None:
    xml = domain_xml(Vm("web", MIB))
    assert not memory_limited(xml)
    limit = "<memtune><hard_limit>9</hard_limit></memtune></domain>"
    assert memory_limited(xml.replace("</domain>", limit))
