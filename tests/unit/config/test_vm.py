"""A VM's file: everything can be said, what is left out is the same each time, errors help."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.config import load_vm
from whimbrel.config.lines import line_numbers
from whimbrel.config.reading import Source
from whimbrel.config.vm import mac_for, uuid_for, vm_from
from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Disk, Nic, Vm
from whimbrel.model.units import GIB, MIB

WHOLE = """
name = "web"
memory = "2 GiB"
vcpus = 2
machine = "pc-q35-10.0"
cpu = "Skylake-Server-v4,-avx512f"
accelerator = "tcg"
kernel = "/boot/vmlinuz"
initrd = "initrd"
append = "console=ttyS0"
firmware = "/usr/share/OVMF.fd"
channels = ["org.example.agent"]
free_page_hints = true
uuid = "6F5D0C0E-43F0-4C08-8B0B-8E9F4D3B1A11"
[[disks]]
name = "root"
path = "/vms/web.qcow2"
format = "qcow2"
size = "10 GiB"
cache = "directsync"
read_only = true
[[disks]]
path = "iscsi://10.0.0.9/iqn.2026-01.org.example/1"
[[nics]]
name = "lan"
bridge = "br0"
mac = "52:54:00:AB:CD:EF"
model = "e1000e"
[[nics]]
"""


def read(text: str, base: str = "/files") -> Vm:
    return vm_from(tomllib.loads(text), Source("vm.toml", line_numbers(text)), Path(base))


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def test_every_key_arrives_where_it_belongs() -> None:
    assert read(WHOLE) == Vm(
        name="web",
        memory=2 * GIB,
        vcpus=2,
        accelerator="tcg",
        kernel=Path("/boot/vmlinuz"),
        initrd=Path("/files/initrd"),
        append="console=ttyS0",
        channels=("org.example.agent",),
        free_page_hints=True,
        machine="pc-q35-10.0",
        cpu="Skylake-Server-v4,-avx512f",
        firmware=Path("/usr/share/OVMF.fd"),
        disks=(
            Disk("root", "/vms/web.qcow2", "qcow2", 10 * GIB, "directsync", read_only=True),
            Disk("disk1", "iscsi://10.0.0.9/iqn.2026-01.org.example/1"),
        ),
        nics=(
            Nic("lan", "br0", "52:54:00:ab:cd:ef", "e1000e"),
            Nic("nic1", mac=mac_for("web", "nic1")),
        ),
        uuid="6f5d0c0e-43f0-4c08-8b0b-8e9f4d3b1a11",
    )


def test_memory_alone_is_enough_and_the_name_is_the_files(tmp_path: Path) -> None:
    path = tmp_path / "web.toml"
    path.write_text('memory = "512 MiB"\n')
    vm = load_vm(path)
    assert vm == Vm("web", 512 * MIB, accelerator="auto", uuid=uuid_for("web"))


@given(st.text(), st.text(), st.text())
def test_an_address_is_the_same_each_time_and_locally_administered(a: str, b: str, c: str) -> None:
    assert mac_for(a, b) == mac_for(a, b)
    assert mac_for(a, b).startswith("52:54:00:")
    first = int(mac_for(a, b)[:2], 16)
    assert first & 2
    assert not first & 1
    if b != c:
        assert mac_for(a, b) != mac_for(a, c)


MEMORY = 'memory = "512 MiB"\n'


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "vm.toml: memory: is missing.", ""),
        ("memory = 512\n", "vm.toml:1: memory: must be a text, not 512.", '"512 MiB"'),
        ('memory = "512"\n', 'vm.toml:1: memory: "512" has no unit.', "MiB"),
        ('memory = "0 MiB"\n', "must be at least 1 MiB", ""),
        ('memory = "1500 kB"\n', "must be a whole number of MiB", ""),
        (MEMORY + 'nam = "x"\n', "vm.toml:2: nam: no such key.", 'mean "name"'),
        (MEMORY + 'name = "../x"\n', 'vm.toml:2: name: "../x" must be letters', ""),
        (MEMORY + 'name = "-x"\n', "must be letters", ""),
        (MEMORY + 'vcpus = "2"\n', "vcpus: must be a whole number", ""),
        (MEMORY + "vcpus = 0\n", "vcpus: must be 1 to 288, not 0.", ""),
        (MEMORY + 'accelerator = "kvn"\n', '"kvn" is not known', 'mean "kvm"'),
        (MEMORY + 'machine = "q35 -S"\n', '"q35 -S" is no word that QEMU knows', ""),
        (MEMORY + 'append = "quiet"\n', "append: belongs to a kernel", ""),
        (MEMORY + 'kernel = "~/vmlinuz"\n', '"~/vmlinuz" is no whole path', "on the host"),
        (MEMORY + 'channels = ["a", "a"]\n', "must name each channel once", ""),
        (MEMORY + 'channels = ["a,b c"]\n', "vm.toml:2: channels[0]: ", ""),
        (MEMORY + 'channels = ["a,chardev=x"]\n', "is no word that QEMU knows", ""),
        (MEMORY + '[[nics]]\nmodel = "e1000e,rombar=0"\n', "is no word that QEMU knows", ""),
        (MEMORY + '[[disks]]\npath = "a"\nname = "0"\n', '"0" must be letters', ""),
        (MEMORY + "[[disks]]\n", "vm.toml:2: disks[0].path: is missing.", ""),
        (MEMORY + '[[disks]]\npath = "a"\nformt = "raw"\n', ":4: disks[0].formt", 'mean "format"'),
        (MEMORY + '[[disks]]\npath = "a"\nformat = "vmdk"\n', '"vmdk" is not known', "raw, qcow2"),
        (MEMORY + '[[disks]]\npath = "a"\ncache = "fast"\n', '"fast" is not known', "directsync"),
        (MEMORY + '[[disks]]\npath = "a"\nsize = "100 B"\n', "a multiple of 512 bytes", ""),
        (MEMORY + '[[disks]]\npath = "a"\n' * 2, ":5: disks[1].path: /files/a is another", ""),
        (MEMORY + '[[nics]]\nname = "n"\n' * 2, "another's name", ""),
        (MEMORY + '[[nics]]\nmac = "5254"\n', '"5254" is no MAC address', ""),
        (MEMORY + '[[nics]]\nmac = "01:00:5e:00:00:01"\n', "of a group", ""),
        (MEMORY + '[[nics]]\nbridge = "br0,x=y z"\n', "nics[0].bridge", ""),
        (MEMORY + 'uuid = "1"\n', '"1" is no UUID', "Leave it out"),
        (MEMORY + "disks = 3\n", "disks: must be a list", ""),
    ],
)
def test_a_mistake_is_told_with_its_place_and_a_remedy(text: str, where: str, what: str) -> None:
    said = refused(text)
    assert where in said
    assert what in said


def test_a_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "web.toml"
    path.write_text('memory = "512 MiB"\n[[disks]]\npath = "/x"\npassword = "hunter2"\n')
    with pytest.raises(ConfigError) as caught:
        load_vm(path)
    assert "disks[0].password" in str(caught.value)
    assert "hunter2" not in str(caught.value)
