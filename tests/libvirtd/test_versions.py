"""An older libvirt beside a newer one: what each can do is asked of the live connection.

Debian 12's own libvirt is fetched by apt from wherever this machine's apt is told to look,
unpacked and never installed; its daemon runs as host b. QEMU is the same for both.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from far.hosts import SSHD
from libvirtd.conftest import Hosts
from libvirtd.daemons import LIBRARIES, OF_PACKAGES, Libvirts, held_libvirts, lacking
from libvirtd.person import Person, person
from storage.guests import disk_vm, sparse
from whimbrel.errors import ExitCode
from whimbrel.lab.kernel import cache_folder, published
from whimbrel.model.inventory import Disk
from whimbrel.model.units import MIB

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(SSHD is None, reason="libvirt+ssh needs an sshd"),
]

OLD = "9.0.0"
PACKAGES = ("libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt0")
BESIDE = ("libyajl2", "libpcap0.8")
"""What that libvirt needs and a newer one does not."""

VM = "writer"
MOVED = {ExitCode.DONE, ExitCode.GOAL_MISSED}


def done(*words: str, folder: Path | None = None) -> str:
    """Run a command; skips where it fails, since nothing here is ours."""
    try:
        ran = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, check=True, timeout=120
        )
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"libvirt {OLD} is not to be had: {error} {getattr(error, 'stderr', '')}")
    return ran.stdout


def unpacked() -> Path:
    """Return the folder of that libvirt, fetched at the first call."""
    kept = cache_folder() / "libvirt" / f"packages-{OLD}"
    if kept.exists():
        return kept
    found = re.search(rf"{re.escape(OLD)}-\S+", done("apt-cache", "madison", PACKAGES[0]))
    if found is None:
        pytest.skip(f"apt knows no libvirt {OLD}")
    with published(kept) as place, tempfile.TemporaryDirectory() as name:
        place.mkdir()
        wanted = [f"{package}={found[0]}" for package in PACKAGES]
        done("apt-get", "-qq", "download", *wanted, *BESIDE, folder=Path(name))
        for package in Path(name).glob("*.deb"):
            done("dpkg", "-x", str(package), str(place))
        for folder in OF_PACKAGES:
            Path(f"{place}{folder}").mkdir(parents=True, exist_ok=True)
    return kept


@pytest.fixture(scope="module")
def libvirts() -> Iterator[Libvirts]:
    if reason := lacking():
        pytest.skip(reason)
    packages = unpacked()
    words = ["env", f"LD_LIBRARY_PATH={packages}{LIBRARIES}", f"{packages}/usr/sbin/libvirtd"]
    assert OLD in done(*words, "--version")
    with held_libvirts() as pair:
        yield pair


@pytest.fixture
async def at(libvirts: Libvirts, hosts: Hosts, tmp_path: Path) -> AsyncIterator[Person]:
    del hosts  # whose VMs end first
    folder = libvirts.folder / tmp_path.name  # short: sockets lie in it
    folder.mkdir()
    async with person(libvirts, folder) as somebody:
        yield somebody


@pytest.fixture
async def older(libvirts: Libvirts) -> None:
    """Let host b run the old daemon."""
    if libvirts.b.packages is None:
        libvirts.b.packages = unpacked()
        shutil.rmtree(libvirts.b.folder / "cache" / "qemu", ignore_errors=True)
        await libvirts.b.kill()
        await libvirts.b.start()


@pytest.mark.usefixtures("older")
async def test_what_an_older_libvirt_lacks_is_told_beside_what_a_newer_has(at: Person) -> None:
    said = await at.whimbrel("hosts", "--capabilities", "--json")
    assert said.code == ExitCode.DONE, said.errors
    told = {each["name"]: each for each in said.json["hosts"]}
    assert f"libvirt {OLD}" in told["b"]["qemu"]
    for capability, since in (("switchover-bandwidth", "11.1.0"), ("zstd", "9.4.0")):
        assert capability in told["a"]["capabilities"]
        reason = told["b"]["lacking"][capability]
        assert f"needs libvirt {since}; on that host it is {OLD}" in reason
    assert "multichannel" in told["b"]["capabilities"]


@pytest.mark.usefixtures("older")
async def test_a_guest_goes_to_an_older_libvirt_and_back_with_its_disk(
    hosts: Hosts, at: Person
) -> None:
    there = at.folder / "there"
    there.mkdir()
    vm = replace(disk_vm([Disk("vda", sparse(at.folder / "vda.img", 64 * MIB))]), name=VM)
    machine = await hosts.a.start(vm)
    domain = await machine.domain()
    await domain.connection.define(await domain.kept_xml())
    async with at.redline(VM, "a") as guest:
        await guest.fill_disk("/dev/vda", 8 * MIB)
    refused = await at.whimbrel(
        "move", VM, "--to", "b", "--method", "compressed", "--survey", "none"
    )
    assert refused.code != ExitCode.DONE
    assert f"it is {OLD}" in refused.errors.replace("\n", " ")
    words = ("--survey", "none", "--method", "multichannel")
    for to, along in (("b", ("--storage", str(there))), ("a", ())):
        said = await at.whimbrel("move", VM, "--to", to, *words, *along)
        assert said.code in MOVED, said.errors
        assert await at.places(VM) == [to]
        async with at.redline(VM, to) as guest:
            assert (await guest.verify_disk("/dev/vda")).intact
    assert [each.name for each in there.iterdir()] == ["vda.img"]
