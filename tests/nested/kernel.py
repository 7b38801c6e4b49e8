"""The kernel and initramfs that nested hosts boot: Debian's full kernel, only unpacked.

The lab's guests boot Debian's small cloud kernel, which has no soft-RoCE, cifs or bonding.

    CACHE/nested/PACKAGE/boot/vmlinuz-VERSION
    CACHE/nested/PACKAGE/lib/modules/VERSION/   with modules.dep, for modprobe
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whimbrel.lab import kernel as lab_kernel
from whimbrel.lab.image import Entry, _busybox, load_order, newc
from whimbrel.lab.kernel import Kernel, cache_folder, published

META_PACKAGE = "linux-image-amd64"
DRIVERS = ("virtio_pci", "virtio_net", "9p", "9pnet_virtio", "overlay")
"""What the initramfs loads; all else comes from the kernel's own folder."""

FIRST = Path(__file__).with_name("init-first")
"""Runs in the initramfs: this machine's root becomes the nested host's."""

_PACKAGE = re.compile(r"Depends: (linux-image-\d\S*)")


@dataclass(frozen=True)
class Boot:
    """What a nested host boots.

    Attributes:
        kernel: The kernel with its modules.
        initrd: The initramfs.
    """

    kernel: Kernel
    initrd: Path


def full_kernel() -> Kernel:
    """Return Debian's full kernel, fetched and unpacked when it is not cached."""
    depends = lab_kernel._run(["apt-cache", "depends", META_PACKAGE])
    match = _PACKAGE.search(depends)
    assert match, f"apt does not know {META_PACKAGE}"
    place = cache_folder() / "nested" / match[1]
    if not place.exists():
        with published(place) as building:
            building.mkdir()
            lab_kernel._download(match[1], building, lab_kernel.quiet)
            version = match[1].removeprefix("linux-image-")
            subprocess.run(["depmod", "-b", str(building), version], check=True)
    found = lab_kernel._unpacked(place)
    assert found is not None, f"{place} holds no kernel"
    return found


def boot_files(kernel: Kernel, folder: Path) -> Boot:
    """Write the initramfs into a folder."""
    initrd = folder / "initrd"
    initrd.write_bytes(newc(_contents(kernel)))
    return Boot(kernel, initrd)


def _contents(kernel: Kernel) -> Iterator[Entry]:
    for place in ("bin", "dev", "proc", "sys", "lower", "upper", "whole", "modules"):
        yield Entry(place, 0o040755)
    yield Entry("dev/console", 0o020600, device=(5, 1))
    yield Entry("bin/busybox", 0o100755, _busybox().read_bytes())
    yield Entry("init", 0o100755, FIRST.read_bytes())
    drivers = load_order(kernel.modules, DRIVERS)
    for name, data in drivers.items():
        yield Entry(f"modules/{name}.ko", 0o100644, data)
    yield Entry("modules/order", 0o100644, "".join(f"{name}.ko\n" for name in drivers).encode())
