"""The kernel and initramfs that nested hosts boot: Debian's full kernel, only unpacked.

The lab's guests boot Debian's small cloud kernel, which has no soft-RoCE, cifs or bonding.

    CACHE/nested/PACKAGE/boot/vmlinuz-VERSION
    CACHE/nested/PACKAGE/lib/modules/VERSION/   with modules.dep, for modprobe
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from whimbrel.errors import LabError
from whimbrel.lab.image import Entry, busybox, load_order, newc
from whimbrel.lab.kernel import (
    Kernel,
    Progress,
    cache_folder,
    download,
    newest_package,
    published,
    quiet,
    run_program,
    unpacked,
)

META_PACKAGES = ("linux-image-amd64",)
"""Debian's full kernel. What it needs of modules stands in one package."""

DRIVERS = ("virtio_pci", "virtio_net", "9p", "9pnet_virtio", "overlay")
"""What the initramfs loads; all else comes from the kernel's own folder."""

FILES = resources.files("whimbrel.lab") / "nested"
"""init-first runs in the initramfs, where this machine's root becomes the nested host's; then
init-second, which lets SSH in."""


@dataclass(frozen=True)
class Boot:
    """What a nested host boots.

    Attributes:
        kernel: The kernel with its modules.
        initrd: The initramfs.
    """

    kernel: Kernel
    initrd: Path


def full_kernel(progress: Progress = quiet) -> Kernel:
    """Return Debian's full kernel, fetched and unpacked when it is not cached.

    Raises:
        LabError: apt does not know it, or it cannot be unpacked.
    """
    package = newest_package(progress, META_PACKAGES)
    depmod = program("depmod")
    place = cache_folder() / "nested" / package
    if not place.exists():
        with published(place) as building:
            building.mkdir()
            download(package, building, progress)
            run_program([depmod, "-b", str(building), package.removeprefix("linux-image-")])
    kernel = unpacked(place)
    if kernel is None:
        raise LabError(f"{place} holds no kernel.", "Remove that folder and try again.")
    return kernel


def program(name: str) -> str:
    """Return the path of a program, also of one for root only; empty where it is not here."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


def boot_files(kernel: Kernel, folder: Path) -> Boot:
    """Write the initramfs into a folder.

    Raises:
        LabError: busybox or a driver is missing.
    """
    initrd = folder / "initrd"
    initrd.write_bytes(newc(_contents(kernel)))
    return Boot(kernel, initrd)


def _contents(kernel: Kernel) -> Iterator[Entry]:
    for place in ("bin", "dev", "proc", "sys", "lower", "upper", "whole", "modules"):
        yield Entry(place, 0o040755)
    yield Entry("dev/console", 0o020600, device=(5, 1))
    yield Entry("bin/busybox", 0o100755, busybox().read_bytes())
    yield Entry("init", 0o100755, (FILES / "init-first").read_bytes())
    drivers = load_order(kernel.modules, DRIVERS)
    for name, data in drivers.items():
        yield Entry(f"modules/{name}.ko", 0o100644, data)
    yield Entry("modules/order", 0o100644, "".join(f"{name}.ko\n" for name in drivers).encode())
