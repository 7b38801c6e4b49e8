"""A VM becomes libvirt's XML and comes back; the destination's differs only where it may."""

from pathlib import Path
from xml.etree import ElementTree as Tree  # noqa: ICN001

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.errors import ProtocolError, Unsupported
from whimbrel.hypervisors.libvirt.domain_xml import (
    at_destination,
    channel_paths,
    described,
    domain_xml,
)
from whimbrel.model.inventory import Disk, Nic, Vm
from whimbrel.model.method import PreparedMemory
from whimbrel.model.units import MIB

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)
DISKS = st.lists(
    st.builds(
        Disk,
        name=NAMES,
        path=st.sampled_from(["/srv/a.img", "/dev/vg/b", "/srv/with space & more.qcow2"]),
        format=st.sampled_from(["raw", "qcow2"]),
        cache=st.sampled_from(["none", "directsync", "writeback"]),
        read_only=st.booleans(),
    ),
    max_size=3,
).map(tuple)
NICS = st.lists(
    st.builds(
        Nic, name=NAMES, bridge=st.sampled_from(["br0", None]), mac=st.just("52:54:00:1:2:3")
    ),
    max_size=2,
).map(tuple)
VMS = st.builds(
    Vm,
    name=NAMES,
    memory=st.integers(16, 4096).map(lambda size: size * MIB),
    vcpus=st.integers(1, 8),
    accelerator=st.sampled_from(["kvm", "tcg"]),
    kernel=st.sampled_from([None, Path("/boot/vmlinuz")]),
    append=st.sampled_from(["", "console=ttyS0 a='b' <c>"]),
    channels=st.lists(NAMES, unique=True, max_size=3).map(tuple),
    disks=DISKS,
    nics=NICS,
    uuid=st.sampled_from(["", "6f2c7a3e-0d0a-4a52-9d7d-1f5e6b7c8d9e"]),
)


@given(VMS)
def test_a_vm_comes_back_from_its_xml(vm: Vm) -> None:
    assert described(domain_xml(vm)) == vm


@pytest.mark.parametrize(
    "vm",
    [
        Vm("hand", MIB, words=("qemu-system-x86_64",)),
        Vm("hints", MIB, free_page_hints=True),
        Vm("far", MIB, disks=(Disk("root", "http://server/image"),)),
    ],
)
def test_what_libvirt_has_no_word_for_is_refused(vm: Vm) -> None:
    with pytest.raises(Unsupported):
        domain_xml(vm)


def test_channels_lie_elsewhere_at_the_destination_and_are_the_same_to_the_guest() -> None:
    source = domain_xml(Vm("web", MIB, channels=("beat", "talk")), "/run/a/web-")
    assert channel_paths(source) == {"beat": "/run/a/web-beat", "talk": "/run/a/web-talk"}
    there = at_destination(source, "/run/b/web-", None)
    assert channel_paths(there) == {"beat": "/run/b/web-beat", "talk": "/run/b/web-talk"}
    assert described(there) == described(source)
    assert channel_paths(at_destination(source, None, None)) == {}


def test_memory_is_prepared_at_the_destination_in_place_of_what_was_said_before() -> None:
    once = at_destination(domain_xml(Vm("web", MIB)), None, PreparedMemory(4))
    twice = at_destination(once, None, PreparedMemory(2))
    [allocation] = Tree.fromstring(twice).findall("memoryBacking/allocation")  # noqa: S314
    assert allocation.attrib == {"mode": "immediate", "threads": "2"}


def test_nothing_but_sockets_and_memory_differs_at_the_destination() -> None:
    source = domain_xml(Vm("web", MIB, disks=(Disk("root", "/srv/a"),), nics=(Nic("lan", "br0"),)))
    assert at_destination(source, "/run/b/", None) == source


@pytest.mark.parametrize(
    "text", ["", "<domain", "<domain/>", "<domain><memory unit='ells'/></domain>"]
)
def test_xml_that_is_none_is_said_to_be_so(text: str) -> None:
    with pytest.raises(ProtocolError):
        described(text)
