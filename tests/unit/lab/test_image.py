import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from whimbrel.errors import LabError
from whimbrel.lab import image as lab_image
from whimbrel.lab.image import Entry, build_image, build_redline, dependencies, load_order, newc
from whimbrel.lab.kernel import Kernel


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "whimbrel"


def module(needs: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0"


def library(root: Path, **modules: str) -> Path:
    """Make a lib/modules/VERSION folder; the value says what a module depends on."""
    folder = root / "modules"
    (folder / "kernel" / "drivers").mkdir(parents=True)
    for name, needs in modules.items():
        (folder / "kernel" / "drivers" / f"{name}.ko").write_bytes(module(needs))
    return folder


def test_a_module_is_loaded_after_all_it_depends_on(tmp_path: Path) -> None:
    modules = library(tmp_path, pci="ring,base", ring="base", base="", other="")
    assert list(load_order(modules, ["pci"])) == ["base", "ring", "pci"]


def test_compressed_modules_are_unpacked(tmp_path: Path) -> None:
    modules = library(tmp_path, base="")
    for suffix, command in (("zst", ["zstd", "-qc"]), ("gz", ["gzip", "-c"])):
        if shutil.which(command[0]):
            done = subprocess.run(command, input=module(""), capture_output=True, check=True)
            (modules / "kernel" / f"by_{suffix}.ko.{suffix}").write_bytes(done.stdout)
    (modules / "kernel" / "by_xz.ko.xz").write_bytes(lzma.compress(module("base")))
    names = [path.name.partition(".")[0] for path in (modules / "kernel").glob("*.ko.*")]
    order = load_order(modules, names)
    assert set(order.values()) == {module(""), module("base")}
    assert list(order).index("base") < list(order).index("by_xz")


def test_drivers_built_into_the_kernel_are_left_out(tmp_path: Path) -> None:
    modules = library(tmp_path, console="virtio_ring")
    (modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio-ring.ko\n")
    assert list(load_order(modules, ["console", "virtio_ring"])) == ["console"]


def test_a_driver_that_is_nowhere_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="virtio_pci is not in"):
        load_order(library(tmp_path, base=""), ["virtio_pci"])


def test_dependencies_are_read_with_underscores() -> None:
    assert dependencies(module("virtio-ring,virtio")) == ["virtio_ring", "virtio"]
    assert dependencies(module("")) == []


def test_the_archive_unpacks_to_what_was_put_in(tmp_path: Path) -> None:
    entries = [
        Entry("folder", 0o040755),
        Entry("folder/odd", 0o100755, b"12345"),
        Entry("folder/link", 0o120777, b"odd"),
        Entry("empty", 0o100644),
    ]
    subprocess.run(["busybox", "cpio", "-id"], input=newc(entries), cwd=tmp_path, check=True)
    assert (tmp_path / "folder" / "odd").read_bytes() == b"12345"
    assert (tmp_path / "folder" / "odd").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "folder" / "link").readlink() == Path("odd")
    assert (tmp_path / "empty").read_bytes() == b""


def test_a_console_is_in_the_archive_as_a_character_device() -> None:
    fields = newc([Entry("dev/console", 0o020600, device=(5, 1))])[6:110]
    numbers = [int(fields[at : at + 8], 16) for at in range(0, 104, 8)]
    assert (numbers[1], *numbers[9:11]) == (0o020600, 5, 1)


def test_redline_is_compiled_once_for_the_same_source(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    first = build_redline(told.append)
    assert build_redline(told.append) == first
    assert told == ["compiling redline"]
    monkeypatch.setattr(lab_image, "COMPILE", (*lab_image.COMPILE, "-DOTHER"))
    assert build_redline() != first
    assert len(list((cache / "redline").glob("*"))) == 2


def test_without_a_compiler_the_hint_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LabError, match="Install gcc"):
        build_redline()


def test_the_same_guest_has_the_same_initramfs_and_boots_the_kernel_it_was_made_for(
    tmp_path: Path,
) -> None:
    modules = library(tmp_path, virtio_pci="", virtio_balloon="", virtio_console="", virtio_blk="")
    kernel = Kernel(tmp_path / "vmlinuz", modules)
    first, second = build_image(kernel), build_image(kernel)
    assert first == second
    assert first.arguments[:4] == ["-kernel", str(kernel.image), "-initrd", str(first.initrd)]
    (modules / "kernel" / "drivers" / "virtio_pci.ko").write_bytes(module("") + b"changed")
    assert build_image(kernel) != first
