import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Disk, Vm
from whimbrel.model.storage import DiskFacts, Extent, Image
from whimbrel.model.units import GIB, MIB
from whimbrel.practice.storage_places import moved_vm, placed_copies, wished_places

ROOT = Disk("vda", "/a/root.qcow2", "qcow2")
DATA = Disk("vdb", "/a/data.raw")
CD = Disk("cd", "/a/tools.iso", read_only=True)
VM = Vm("web", GIB, disks=(ROOT, DATA, CD))
BASE = Image("/base/debian.raw", "raw", 300 * MIB)
FACTS = (
    DiskFacts("vda", GIB, (Image("/a/root.qcow2", "qcow2", 50 * MIB), BASE)),
    DiskFacts("vdb", GIB, (Image("/a/data.raw", "raw", 20 * MIB),)),
    DiskFacts("cd", GIB, (Image("/a/tools.iso", "raw", MIB),), read_only=True),
)


def places(*words: str, extent: Extent = Extent.WHOLE) -> dict[str, str]:
    return {copy.place.name: copy.place.path for copy in placed_copies(VM, FACTS, words, extent)}


def test_a_folder_takes_every_disk_that_can_be_written_under_its_own_name() -> None:
    assert places("/b") == {"vda": "/b/root.qcow2", "vdb": "/b/data.raw"}
    assert places("nfs://nas/vms/") == {
        "vda": "nfs://nas/vms/root.qcow2",
        "vdb": "nfs://nas/vms/data.raw",
    }


def test_a_disk_that_is_named_goes_to_just_that_place() -> None:
    found = places("/b", "vdb=/fast/d.raw")
    assert found == {"vda": "/b/root.qcow2", "vdb": "/fast/d.raw"}
    assert places("/b", "vdb=/fast/")["vdb"] == "/fast/data.raw"
    assert places("/b", "vdb=iscsi://nas/iqn.2026-01.x:y/1")["vdb"].startswith("iscsi://")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vdz=/b"], 'no disk "vdz"'),
        (["b"], "no place for a disk"),
        (["vda=b"], "no place for a disk"),
        (["/b", "/c"], "given twice"),
        (["vda=/b/x", "vda=/c/x"], "given twice"),
        (["vda=/b/x"], "vdb has no place"),
        (["vda=/b/x", "vdb=/b/x"], "cannot both be"),
        (["/dev/sdb"], "holds one disk"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        placed_copies(VM, FACTS, words)


def test_a_path_with_an_equals_sign_is_a_path() -> None:
    assert wished_places(["/b/x=y"], ["vda"]) == ("/b/x=y", {})


def test_images_of_one_name_are_told_apart_by_their_disks() -> None:
    twins = Vm("web", GIB, disks=(Disk("vda", "/a/disk"), Disk("vdb", "/c/disk")))
    facts = [DiskFacts(n, GIB, (Image("/x", "raw", 1),)) for n in ("vda", "vdb")]
    found = placed_copies(twins, facts, ["/b"])
    assert [copy.place.path for copy in found] == ["/b/web-vda.raw", "/b/web-vdb.raw"]


def test_a_device_becomes_a_file_named_after_vm_and_disk() -> None:
    vm = Vm("web", GIB, disks=(Disk("vda", "/dev/vg/web"),))
    facts = [DiskFacts("vda", GIB, (Image("/dev/vg/web", "raw", GIB),))]
    [copy] = placed_copies(vm, facts, ["/b"])
    assert copy.place.path == "/b/web-vda.raw"


def test_only_the_top_travels_where_it_is_asked_for_and_there_is_a_base() -> None:
    top, alone = placed_copies(VM, FACTS, ["/b"], Extent.TOP)
    assert (top.extent, top.base, top.data) == (Extent.TOP, BASE, 50 * MIB)
    assert (alone.extent, alone.base, alone.data) == (Extent.WHOLE, None, 20 * MIB)
    whole = placed_copies(VM, FACTS, ["/b"])[0]
    assert (whole.base, whole.data) == (None, 350 * MIB)


def test_disks_without_a_place_stay_where_only_named_ones_move() -> None:
    [copy] = placed_copies(VM, FACTS, ["vdb=/c/d.raw"], only_named=True)
    assert copy.place.name == "vdb"


def test_the_moved_vm_differs_in_its_paths_only() -> None:
    found = moved_vm(VM, placed_copies(VM, FACTS, ["/b"]))
    assert [disk.path for disk in found.disks] == ["/b/root.qcow2", "/b/data.raw", "/a/tools.iso"]
    assert [disk.format for disk in found.disks] == ["qcow2", "raw", "raw"]
    assert found.memory == VM.memory


@given(st.lists(st.text(max_size=12), max_size=4))
def test_words_are_understood_or_refused_and_never_anything_else(words: list[str]) -> None:
    try:
        general, named = wished_places(words, ["vda", "vdb"])
    except ConfigError:
        return
    assert set(named) <= {"vda", "vdb"}
    assert all(place.startswith(("/", "nfs://", "iscsi://")) for place in named.values())
    assert bool(general) + len(named) == len(words)
