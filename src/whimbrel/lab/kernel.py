"""The Linux kernel that lab guests boot: a given one, a cached one, this machine's, or apt's.

What apt delivers is only unpacked, never installed. The cache holds one folder for each package:

    CACHE/kernels/PACKAGE/boot/vmlinuz-VERSION
    CACHE/kernels/PACKAGE/[usr/]lib/modules/VERSION/
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from whimbrel.errors import LabError

Progress = Callable[[str], None]
"""Is told, in a sentence for people, what is being done now."""

META_PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-generic")
"""Packages that depend on the newest kernel: Debian's small one first, then Ubuntu's."""

_IMAGE_PACKAGE = re.compile(r"Depends: (linux-image-(?:unsigned-)?\d\S*)")
_APT_SECONDS = 600.0
_BY_HAND = "Give a kernel with --kernel PATH (and the folder of its modules with --modules)."

# The header of a bzImage (Documentation/arch/x86/boot.rst in Linux).
_MAGIC, _MAGIC_AT = b"HdrS", 0x202
_VERSION_AT = 0x20E
"""Two bytes: where the version's text stands, counted from the second sector."""
_SECTOR = 0x200
_LONGEST_VERSION = 256


@dataclass(frozen=True)
class Kernel:
    """A kernel that a guest can boot.

    Attributes:
        image: The bzImage.
        modules: Its `lib/modules/VERSION` folder, or one with the `modules.builtin` of a kernel
            that has every driver built in.
    """

    image: Path
    modules: Path


def quiet(_message: str) -> None:
    """Tell nobody."""


def cache_folder() -> Path:
    """Return whimbrel's private cache folder (mode 0700), created when missing.

    Raises:
        LabError: The folder cannot be made, or belongs to somebody else.
    """
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "whimbrel"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise LabError(
            f"The cache folder {folder} cannot be used: {error.strerror}.",
            "Set XDG_CACHE_HOME to a folder that you own.",
        ) from error
    return folder


@contextmanager
def published(final: Path) -> Iterator[Path]:
    """Build a file or folder beside its final place and rename it when the block succeeds.

    Two whimbrels may build the same thing at once: the first rename counts, and readers see all
    of it or nothing.

    Yields:
        A path that does not exist yet, on the same filesystem as `final`.
    """
    final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=".building-", dir=final.parent))
    try:
        yield workshop / final.name
        with suppress(OSError):  # the other whimbrel's folder is as good as ours
            (workshop / final.name).rename(final)
        if not final.exists():
            raise LabError(f"{final} could not be put in its place.", "Is the disk full?")
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def find_kernel(
    *,
    image: Path | None = None,
    modules: Path | None = None,
    progress: Progress = quiet,
    boot: Path = Path("/boot"),
    libraries: Path = Path("/lib/modules"),
) -> Kernel:
    """Return a kernel: the given one, a cached one, this machine's, or a newly fetched one.

    Args:
        image: A kernel that a person chose; then nothing else is tried.
        modules: The `lib/modules/VERSION` folder of that kernel; looked for by the version
            that the image names, when it is not given.
        progress: Is told what takes long.
        boot: Where this machine keeps its kernels.
        libraries: Where it keeps their modules.

    Raises:
        LabError: There is no kernel; the hint says how to get one.
    """
    if image is not None:
        return _given(image, modules, libraries)
    kernels = cache_folder() / "kernels"
    found = _cached(kernels) or _installed(boot, libraries)
    return found or _fetched(kernels, progress)


def kernel_version(image: Path) -> str | None:
    """Return what `uname -r` says under a kernel; None where the file is no bzImage."""
    with image.open("rb") as file:
        head = file.read(_SECTOR + 0x10)
        start = int.from_bytes(head[_VERSION_AT : _VERSION_AT + 2], "little")
        if head[_MAGIC_AT:].startswith(_MAGIC) and start:
            file.seek(_SECTOR + start)
            words = file.read(_LONGEST_VERSION).partition(b"\0")[0].split()
            return words[0].decode(errors="replace") if words else None
    return None


def _given(image: Path, modules: Path | None, libraries: Path) -> Kernel:
    if not os.access(image, os.R_OK) or not image.is_file():
        raise LabError(f"The kernel {image} cannot be read.", "Check --kernel.")
    if modules is not None and not modules.is_dir():
        raise LabError(
            f"{modules} is not a folder of kernel modules.", "It ends in lib/modules/VERSION."
        )
    return Kernel(image, modules or _modules_of(image, libraries))


def _modules_of(image: Path, libraries: Path) -> Path:
    hint = "Give its lib/modules/VERSION folder with --modules, or, where all drivers are built "
    hint += "in, the folder that holds the modules.builtin of its build."
    version = kernel_version(image)
    if version is None:
        raise LabError(
            f"{image} does not say which version it is, so its modules cannot be found.", hint
        )
    for place in (libraries, *_module_folders(image.resolve().parent.parent)):
        if (place / version).is_dir():
            return place / version
    raise LabError(f"{image} is Linux {version}; there is no folder {libraries / version}.", hint)


def _cached(kernels: Path) -> Kernel | None:
    packages = sorted(kernels.glob("linux-image-*"), key=_by_number, reverse=True)
    return next((kernel for package in packages if (kernel := unpacked(package))), None)


def unpacked(package: Path) -> Kernel | None:
    """Return the kernel of a package that was unpacked into a folder; None where it has none."""
    libraries = next((path for path in _module_folders(package) if path.is_dir()), None)
    return _installed(package / "boot", libraries) if libraries else None


def _module_folders(package: Path) -> tuple[Path, Path]:
    return package / "lib" / "modules", package / "usr" / "lib" / "modules"


def _installed(boot: Path, libraries: Path) -> Kernel | None:
    for image in sorted(boot.glob("vmlinuz-*"), key=_by_number, reverse=True):
        modules = libraries / image.name.removeprefix("vmlinuz-")
        if os.access(image, os.R_OK) and (modules / "kernel").is_dir():
            return Kernel(image, modules)
    return None


def _by_number(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _fetched(kernels: Path, progress: Progress) -> Kernel:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise LabError(
            "No Linux kernel for the lab's guests was found, and apt is not here.", _BY_HAND
        )
    package = newest_package(progress)
    with published(kernels / package) as place:
        place.mkdir()
        # Ubuntu keeps the modules in a package of their own.
        modules = re.sub(r"^linux-image-(?:unsigned-)?", "linux-modules-", package)
        for wanted in (package, modules) if _known(modules) else (package,):
            download(wanted, place, progress)
        if unpacked(place) is None:
            raise LabError(f"The package {package} holds no kernel that can be used.", _BY_HAND)
    kernel = unpacked(kernels / package)
    if kernel is None:
        raise LabError(f"{kernels / package} holds no kernel.", "Remove that folder and try again.")
    return kernel


def newest_package(progress: Progress, metas: Sequence[str] = META_PACKAGES) -> str:
    """Ask apt which kernel package is current; refresh empty lists when that is allowed.

    Args:
        progress: Is told what takes long.
        metas: Packages that depend on it, the best first.

    Raises:
        LabError: apt is missing, or knows none of them.
    """
    for attempt in ("as it is", "refreshed"):
        for meta in metas:
            depends = run_program(["apt-cache", "depends", meta], check=False)
            if match := _IMAGE_PACKAGE.search(depends):
                return match[1]
        if attempt == "as it is" and os.geteuid() == 0:
            progress("refreshing apt's package lists")
            run_program(["apt-get", "-qq", "update"], check=False)
    raise LabError(f"apt knows none of {', '.join(metas)}.", f'Run "apt-get update". {_BY_HAND}')


def _known(package: str) -> bool:
    return bool(run_program(["apt-cache", "show", package], check=False))


def download(package: str, place: Path, progress: Progress) -> None:
    """Let apt download a package and unpack it into a folder; `LabError` when that fails."""
    progress(f"downloading {package}")
    # As root apt would fetch as its own user, who may not write into a private folder.
    unboxed = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    run_program(["apt-get", "-qq", *unboxed, "download", package], folder=place)
    for archive in place.glob("*.deb"):
        progress(f"unpacking {package}")
        run_program(["dpkg-deb", "-x", str(archive), str(place)])
        archive.unlink()


def run_program(words: Sequence[str], *, folder: Path | None = None, check: bool = True) -> str:
    """Run a program and return its output; LabError when it fails and `check` is asked for."""
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_APT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{words[0]} could not be run: {error}.", _BY_HAND) from error
    if check and done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        raise LabError(f'"{" ".join(words)}" failed: {last}', _BY_HAND)
    return done.stdout
