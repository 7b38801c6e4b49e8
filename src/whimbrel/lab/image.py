"""The lab's guest: a kernel, and an initramfs of busybox, redline and the virtio drivers.

Both redline and the initramfs are cached under a hash of everything that goes into them, so a
changed source, compiler, kernel or script builds anew and nothing else does. The initramfs is
not compressed: an emulated CPU unpacks more slowly than QEMU copies.
"""

import hashlib
import lzma
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from whimbrel.errors import LabError
from whimbrel.lab.kernel import Kernel, Progress, cache_folder, published, quiet

APPEND = "console=ttyS0 quiet panic=-1 mitigations=off"
"""The guest kernel's command line; with `-no-reboot` panic=-1 makes QEMU end with the guest."""

DRIVERS = ("virtio_pci", "virtio_balloon", "virtio_console", "virtio_blk")
"""The drivers a guest needs; what they depend on is read from the modules themselves."""

CONTROL_PORT = "org.whimbrel.redline"
BEAT_PORT = "org.whimbrel.beat"

COMPILE = ("gcc", "-O2", "-std=gnu11", "-static", "-pthread")
_SOURCES = resources.files("whimbrel.lab") / "guest"
_BUILD_SECONDS = 120.0
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
_APPLETS = ("sh", "mount", "insmod")


@dataclass(frozen=True)
class Image:
    """What a guest boots.

    Attributes:
        kernel: The bzImage.
        initrd: The initramfs, named after the hash of what is in it.
    """

    kernel: Path
    initrd: Path

    @property
    def arguments(self) -> list[str]:
        """QEMU's arguments to boot it."""
        return ["-kernel", str(self.kernel), "-initrd", str(self.initrd), "-append", APPEND]


@dataclass(frozen=True)
class Entry:
    """One file, folder (`data` None) or character device of an archive."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def build_image(kernel: Kernel, progress: Progress = quiet) -> Image:
    """Return the guest image for a kernel, built when it is not cached.

    Raises:
        LabError: The compiler, busybox or a driver is missing; the hint says what to install.
    """
    archive = newc(_contents(build_redline(progress), kernel.modules))
    initrd = cache_folder() / "images" / f"initrd-{hashlib.sha256(archive).hexdigest()[:16]}"
    if not initrd.exists():
        progress("building the guest's initramfs")
        with published(initrd) as place:
            place.write_bytes(archive)
    return Image(kernel.image, initrd)


def build_redline(progress: Progress = quiet) -> Path:
    """Return the static redline program, compiled when it is not cached.

    Raises:
        LabError: There is no compiler or no static C library, or it refused the source.
    """
    sources = sorted(
        (item.name, item.read_bytes())
        for item in _SOURCES.iterdir()
        if item.name.endswith((".c", ".h"))
    )
    key = hashlib.sha256(repr((sources, COMPILE, _compiler())).encode()).hexdigest()[:16]
    program = cache_folder() / "redline" / f"redline-{key}"
    if not program.exists():
        progress("compiling redline")
        with published(program) as place:
            _compile(sources, place)
    return program


def _compiler() -> str:
    compiler = shutil.which(COMPILE[0])
    if compiler is None:
        raise LabError(
            "There is no C compiler to build redline with.", "Install gcc and libc6-dev."
        )
    return _output([compiler, "--version"])


def _compile(sources: Iterable[tuple[str, bytes]], program: Path) -> None:
    folder = program.parent / "source"
    folder.mkdir()
    for name, text in sources:
        (folder / name).write_bytes(text)
    _output([*COMPILE, "-o", str(program), *map(str, sorted(folder.glob("*.c")))])


def _output(words: list[str], data: bytes | None = None) -> str:
    return _bytes(words, data).decode(errors="replace")


def _bytes(words: list[str], data: bytes | None = None) -> bytes:
    try:
        done = subprocess.run(
            words, input=data, capture_output=True, timeout=_BUILD_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{words[0]} could not be run: {error}.", f"Install {words[0]}.") from error
    if done.returncode != 0:
        raise LabError(
            f"{words[0]} failed: {done.stderr.decode(errors='replace').strip()[:500]}",
            "The guest's program needs gcc and a static C library (libc6-dev).",
        )
    return done.stdout


def _contents(redline: Path, modules: Path) -> Iterator[Entry]:
    """List the initramfs: folders first, as the kernel creates entries in order."""
    for folder in ("bin", "dev", "proc", "sys", "modules"):
        yield Entry(folder, 0o040755)
    # Before devtmpfs is mounted, this is where the first line goes.
    yield Entry("dev/console", 0o020600, device=(5, 1))
    yield Entry("bin/busybox", 0o100755, busybox().read_bytes())
    for applet in _APPLETS:
        yield Entry(f"bin/{applet}", 0o120777, b"busybox")
    yield Entry("redline", 0o100755, redline.read_bytes())
    yield Entry("init", 0o100755, (_SOURCES / "init").read_bytes())
    drivers = load_order(modules)
    for name, data in drivers.items():
        yield Entry(f"modules/{name}.ko", 0o100644, data)
    yield Entry("modules/order", 0o100644, "".join(f"{name}.ko\n" for name in drivers).encode())


def busybox() -> Path:
    """Return the static busybox of this machine; `LabError` where it has none."""
    found = shutil.which("busybox")
    if found is None:
        raise LabError("busybox is missing.", "Install busybox-static.")
    if b"\0/lib64/ld-linux" in Path(found).read_bytes()[:4096]:
        raise LabError(f"{found} is not static.", "Install busybox-static.")
    return Path(found)


def load_order(modules: Path, wanted: Iterable[str] = DRIVERS) -> dict[str, bytes]:
    """Return the wanted modules and all they depend on, in the order they must be loaded.

    Args:
        modules: A `lib/modules/VERSION` folder; compressed modules are unpacked.
        wanted: Module names with underscores; those built into the kernel are left out.

    Raises:
        LabError: A module is neither there nor built in.
    """
    files = {
        path.name.partition(".")[0].replace("-", "_"): path
        for path in (modules / "kernel").rglob("*.ko*")
        if path.name.endswith(_SUFFIXES)
    }
    built_in = _built_in(modules)
    order: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in order or (name in built_in and name not in files):
            return
        if name not in files:
            raise LabError(
                f"The kernel module {name} is not in {modules}.",
                "The guest needs virtio_pci, virtio_console, virtio_balloon and virtio_blk.",
            )
        data = _plain(files[name])
        for dependency in dependencies(data):
            add(dependency)
        order[name] = data

    for name in wanted:
        add(name)
    return order


def _built_in(modules: Path) -> set[str]:
    listing = modules / "modules.builtin"
    if not listing.exists():
        return set()
    return {Path(line).stem.replace("-", "_") for line in listing.read_text().split()}


def dependencies(module: bytes) -> list[str]:
    """Read from a module's own information which modules must be loaded before it."""
    match = _DEPENDS.search(module)
    names = match[1].decode().split(",") if match else []
    return [name.replace("-", "_") for name in names if name]


def _plain(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix in {".zst", ".gz"}:
        return _bytes(["zstd" if path.suffix == ".zst" else "gzip", "-dcq"], data)
    return data


def newc(entries: Iterable[Entry]) -> bytes:
    """Write a cpio archive in the "new ASCII" format that Linux unpacks as an initramfs.

    The same entries always give the same bytes: no times, owners or inode numbers of this machine.
    """
    parts: list[bytes] = []
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.path.encode() + b"\0"
        fields = (
            *(number, entry.mode, 0, 0, 1, 0, len(entry.data)),
            *(0, 0, *entry.device, len(name), 0),
        )
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        parts += [_padded(header + name), _padded(entry.data)]
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
