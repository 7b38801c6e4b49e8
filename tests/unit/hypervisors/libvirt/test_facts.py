"""XML and numbers of libvirt's in, a preflight's facts out."""

import pytest

from whimbrel.errors import ProtocolError
from whimbrel.hypervisors.libvirt.disk_facts import targets
from whimbrel.hypervisors.libvirt.facts import (
    DEFAULT_CPU,
    IMMOVABLE,
    Told,
    hypervisor_facts,
    machine_facts,
    parsed,
)
from whimbrel.model.preflight import DiskState, MachineFacts

TOLD = Told(10000002, "11.3.0")

LIVE = """
<domain type='kvm' id='3'>
  <name>web</name>
  <uuid>6f2c7a3e-0d0a-4a52-9d7d-1f5e6b7c8d9e</uuid>
  <memory unit='KiB'>1048576</memory>
  <vcpu>2</vcpu>
  <os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>Westmere</model>
    <feature policy='require' name='vmx'/>
    <feature policy='disable' name='svm'/>
    <feature policy='require' name='invtsc'/>
  </cpu>
  <clock offset='utc'><timer name='tsc' frequency='2000000000'/></clock>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/srv/web.qcow2' index='2'/>
      <backingStore type='file' index='3'>
        <format type='raw'/>
        <source file='/srv/base.img'/>
        <backingStore/>
      </backingStore>
      <target dev='vda' bus='virtio'/>
      <alias name='ua-root'/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='unsafe'/>
      <source protocol='nbd' name='export'><host name='10.0.0.9' port='10809'/></source>
      <target dev='vdb' bus='virtio'/>
      <alias name='ua-data'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/srv/install.iso'/>
      <target dev='sda' bus='sata'/>
      <readonly/>
      <alias name='ua-cd'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='sdb' bus='sata'/>
      <readonly/>
      <alias name='ua-empty'/>
    </disk>
    <graphics type='vnc' port='5900'/>
    <video><model type='virtio'/><alias name='video0'/></video>
    <redirdev bus='usb' type='spicevmc'><alias name='redir0'/></redirdev>
  </devices>
</domain>
"""

CAPABILITIES = """
<capabilities>
  <guest>
    <os_type>hvm</os_type>
    <arch name='i686'><machine maxCpus='1'>pc</machine></arch>
    <arch name='x86_64'>
      <machine canonical='pc-q35-10.0' maxCpus='4096'>q35</machine>
      <machine maxCpus='255'>pc-q35-2.6</machine>
      <domain type='qemu'/>
      <domain type='kvm'><machine maxCpus='16'>of-kvm</machine></domain>
    </arch>
  </guest>
</capabilities>
"""

ABLE = """
<domainCapabilities>
  <cpu>
    <mode name='host-passthrough' supported='yes'/>
    <mode name='maximum' supported='no'/>
    <mode name='host-model' supported='yes'><model>Skylake-Client</model></mode>
    <mode name='custom' supported='yes'>
      <model usable='yes'>qemu64</model>
      <model usable='no'>Westmere</model>
    </mode>
  </cpu>
  <devices>
    <disk supported='yes'>
      <enum name='diskDevice'><value>disk</value></enum>
      <enum name='bus'><value>virtio</value><value>sata</value></enum>
    </disk>
    <graphics supported='yes'><enum name='type'><value>vnc</value></enum></graphics>
    <video supported='yes'><enum name='modelType'><value>vga</value></enum></video>
  </devices>
</domainCapabilities>
"""


def facts(xml: str = LIVE, told: Told = TOLD) -> MachineFacts:
    return machine_facts(xml, told)


def with_device(device: str) -> str:
    return LIVE.replace("<devices>", f"<devices>{device}")


def test_a_vm_is_told_as_its_live_xml_has_it() -> None:
    found = facts()
    assert found.version == (10, 0, 2)
    assert found.package == "libvirt 11.3.0"
    assert found.machine_type == "pc-q35-10.0"
    assert found.cpu_model == "Westmere"
    assert found.cpu_features == {"invtsc"}  # no destination could be asked for the others
    assert found.tsc_frequency == 2_000_000_000
    assert (found.state, found.migration, found.huge_page) == ("running", "", 0)
    assert (found.blocked, found.jobs, found.tpm, found.shared_memory) == ((), (), (), ())


def test_disks_are_told_with_what_they_rest_on_and_empty_drives_are_none() -> None:
    told = Told(10000002, "11.3.0", sizes={"vda": (1000, 300)}, checkpoints=("monday",))
    root, data, cd = facts(told=told).disks
    assert root == DiskState(
        "root",
        ("/srv/web.qcow2", "/srv/base.img"),
        "qcow2",
        size=1000,
        allocated=300,
        bitmaps=("monday",),
    )
    assert data.chain == ("nbd://10.0.0.9:10809/export",)
    assert data.no_flush
    assert not data.direct
    assert (cd.name, cd.read_only, cd.bitmaps) == ("cd", True, ())
    assert targets(parsed(LIVE)) == ["vda", "vdb", "sda"]


def test_devices_are_named_by_kinds_that_a_destination_can_be_asked_for() -> None:
    kinds = facts().devices
    assert kinds["root"] == "disk virtio"
    assert kinds["video0"] == "video virtio"
    assert "graphics vnc" in kinds.values()
    assert "usb-redir" not in kinds.values()  # it is SPICE's, and begins anew


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("<hostdev mode='subsystem' type='pci'/>", "vfio-pci"),
        ("<hostdev mode='subsystem' type='mdev'/>", "vfio-pci"),
        ("<hostdev mode='subsystem' type='usb'/>", "usb-host"),
        ("<interface type='hostdev'/>", "vfio-pci"),
        ("<interface type='vdpa'/>", "vhost-vdpa-net"),
        ("<redirdev bus='usb' type='tcp'/>", "usb-redir"),
        ("<shmem name='x'><model type='ivshmem-plain'/></shmem>", "ivshmem-plain"),
        ("<filesystem type='mount'><driver type='virtiofs'/></filesystem>", "vhost-user-fs-pci"),
        ("<filesystem type='mount'/>", "virtio-9p-pci"),
    ],
)
def test_what_stays_with_its_host_has_the_kind_that_the_checks_know(device: str, kind: str) -> None:
    found = facts(with_device(device))
    assert kind in found.devices.values()
    assert kind in IMMOVABLE


def test_a_nic_that_the_host_takes_out_for_a_move_may_stay() -> None:
    teamed = "<interface type='hostdev'><teaming type='transient' persistent='ua-x'/></interface>"
    assert not IMMOVABLE & set(facts(with_device(teamed)).devices.values())


def test_what_libvirt_would_refuse_blocks() -> None:
    assert "before-upgrade" in facts(told=Told(1, "", snapshots=("before-upgrade",))).blocked[0]
    assert facts(with_device("<hostdev mode='subsystem' type='scsi'/>")).blocked
    volume = with_device("<disk type='volume'><source/><target dev='vdz'/></disk>")
    assert "vdz" in facts(volume).blocked[0]
    tpm = with_device("<tpm model='tpm-crb'><backend type='emulator'/></tpm>")
    assert facts(tpm).tpm == ("emulator",)
    guarded = LIVE.replace("<devices>", "<launchSecurity type='sev'/><devices>")
    assert facts(guarded).objects == {"launchSecurity": "sev-guest"}


def test_memory_is_shared_only_where_a_program_shares_it() -> None:
    shared = "<memoryBacking><access mode='shared'/></memoryBacking><devices>"
    assert facts(LIVE.replace("<devices>", shared)).shared_memory == ()
    served = with_device("<filesystem type='mount'><driver type='virtiofs'/></filesystem>")
    assert facts(served.replace("<devices>", shared)).shared_memory == ("filesystem",)


@pytest.mark.parametrize(
    ("backing", "size"),
    [
        ("<hugepages/>", 2 << 20),
        ("<hugepages><page size='1048576' unit='KiB'/></hugepages>", 1 << 30),
        ("<allocation mode='immediate'/>", 0),
    ],
)
def test_huge_pages_are_told_by_their_size(backing: str, size: int) -> None:
    xml = LIVE.replace("<devices>", f"<memoryBacking>{backing}</memoryBacking><devices>")
    assert facts(xml).huge_page == size


@pytest.mark.parametrize(
    ("state", "reason", "word"),
    [
        (1, 1, "running"),
        (2, 0, "running"),
        (3, 1, "paused"),
        (3, 5, "io-error"),
        (3, 11, "inmigrate"),
        (3, 12, "postmigrate"),
        (4, 1, "shutdown"),
        (6, 1, "guest-panicked"),
    ],
)
def test_a_state_is_told_in_words_that_the_checks_know(state: int, reason: int, word: str) -> None:
    assert facts(told=Told(1, "", state=state, reason=reason)).state == word


def test_jobs_are_named_and_a_move_is_none_of_them() -> None:
    told = Told(1, "", job={"operation": 9}, block_jobs={"vda": {"type": 2}})
    assert facts(told=told).jobs == ("backup", "copy on vda")
    moving = facts(told=Told(1, "", job={"operation": 5}))
    assert (moving.jobs, moving.migration) == ((), "active")


@pytest.mark.parametrize(
    ("cpu", "model"),
    [
        ("<cpu mode='host-passthrough' migratable='on'/>", "host"),
        ("<cpu mode='maximum'/>", "max"),
        ("", DEFAULT_CPU),
    ],
)
def test_a_cpu_is_named_as_qemu_names_it(cpu: str, model: str) -> None:
    begin, _, rest = LIVE.partition("<cpu")
    assert facts(begin + cpu + rest.partition("</cpu>")[2]).cpu_model == model


def test_a_host_tells_what_it_can_build_for_the_accelerator_asked_for() -> None:
    found = hypervisor_facts(10000002, "11.3.0", CAPABILITIES, ABLE, "qemu")
    assert found.version == (10, 0, 2)
    assert found.machine_types == {"q35": 4096, "pc-q35-10.0": 4096, "pc-q35-2.6": 255}
    assert found.cpu_models == {DEFAULT_CPU, "host", "qemu64", "Westmere"}
    assert {"disk virtio", "disk sata", "graphics vnc", "video vga"} <= found.devices
    assert "video virtio" not in found.devices
    kvm = hypervisor_facts(10000002, "11.3.0", CAPABILITIES, ABLE, "kvm")
    assert kvm.machine_types["of-kvm"] == 16


def test_what_is_no_xml_is_told_as_such() -> None:
    with pytest.raises(ProtocolError):
        facts("<domain")
