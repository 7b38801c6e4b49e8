"""Images of disks on a host: made like others, kept or removed again, and measured.

Only what whimbrel made is ever removed by itself. Each image made has a record, written before
the image and gone when the move is over:

    FOLDER/images/TOKEN.json     path, device and inode, the VM it was made for

An image whose device and inode are other ones than the record's is somebody else's by now.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import subprocess
from pathlib import Path
from typing import Any

_FORMATS = ("raw", "qcow2")
_TOKEN = re.compile(r"[0-9a-f]{16}")
_ADDRESS = re.compile(r"(nfs|iscsi)://[^-]")
_QEMU_IMG_SECONDS = 60.0
_CHUNK = 1 << 20


def image_make(
    *,
    folder: str,
    vm: str,
    path: str,
    image_format: str,
    size: int,
    backing: str | None = None,
    backing_format: str | None = None,
) -> str:
    """Make a new, empty image, and return the token of its record; "" for one that was there.

    A block device or an iSCSI unit is not made but used as it is: it must have exactly `size`
    bytes. A file must not exist yet.

    Args:
        folder: The host's folder of whimbrel.
        vm: The VM it is made for, for whoever reads the record.
        path: Where.
        image_format: "raw" or "qcow2".
        size: Virtual bytes.
        backing: What it rests on, by absolute path; None: nothing.
        backing_format: The format of that.
    """
    if image_format not in _FORMATS:
        raise ValueError(f"{path}: images are made as raw or qcow2, not {image_format}")
    if _is_address(path):
        return _make_far(path, image_format, size)
    if not os.path.isabs(path):  # noqa: PTH117 - the word as it was written
        raise ValueError(f"{path} is no absolute path")
    with contextlib.suppress(FileNotFoundError):
        found = Path(path).stat()
        if stat.S_ISBLK(found.st_mode):
            _check_device(path, image_format, size)
            return ""
        raise FileExistsError(f"{path} is there already; an image that exists is not overwritten")
    return _make_file(folder, vm, path, (image_format, size, backing, backing_format))


def _make_file(
    folder: str, vm: str, path: str, wanted: tuple[str, int, str | None, str | None]
) -> str:
    image_format, size, backing, backing_format = wanted
    token = secrets.token_hex(8)
    record = _record(folder, token)
    # One by one, since the mode is that of the last folder only.
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    record.parent.mkdir(mode=0o700, exist_ok=True)
    # Exclusively, so that nobody's image is overwritten whoever is quicker.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        made = os.fstat(file)
        held = {"path": path, "device": made.st_dev, "inode": made.st_ino, "vm": vm}
        _write(record, held)
        if image_format == "raw":
            os.ftruncate(file, size)
        else:
            _create_qcow2(path, size, backing, backing_format)
        os.fsync(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(path).unlink()
        with contextlib.suppress(OSError):
            record.unlink()
        raise
    finally:
        os.close(file)
    return token


def _create_qcow2(path: str, size: int, backing: str | None, backing_format: str | None) -> None:
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=off"]
    if backing is not None:
        words += ["-b", backing, "-F", backing_format or "raw"]
    _qemu_img([*words, "--", path, str(size)])


def _make_far(path: str, image_format: str, size: int) -> str:
    if path.startswith("iscsi://"):
        _check_device(path, image_format, size)
    else:
        if _answers(path):
            raise FileExistsError(f"{path} is there already; it is not overwritten")
        _qemu_img(["qemu-img", "create", "-q", "-f", image_format, "--", path, str(size)])
    return ""


def _check_device(path: str, image_format: str, size: int) -> None:
    if image_format != "raw":
        raise ValueError(f"{path} is a device: the disk must be raw there, not {image_format}")
    told = _qemu_img(["qemu-img", "info", "-U", "-f", "raw", "--output=json", "--", path])
    found = int(json.loads(told)["virtual-size"])
    if found != size:
        raise ValueError(f"{path} has {found} bytes; the disk has {size}, and both must be equal")


def _answers(path: str) -> bool:
    words = ["qemu-img", "info", "-U", "--", path]
    done = subprocess.run(words, capture_output=True, timeout=_QEMU_IMG_SECONDS, check=False)
    return done.returncode == 0


def image_remove(folder: str, token: str) -> bool:
    """Remove an image that whimbrel made, with its record; False where it is another's by now."""
    held = _read(_record(folder, token))
    if held is None:
        return False
    path = Path(held["path"])
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        if (found.st_dev, found.st_ino) != (held["device"], held["inode"]):
            return False
        path.unlink()
    _record(folder, token).unlink()
    return True


def image_keep(folder: str, token: str) -> None:
    """Forget that whimbrel made an image: it is the VM's now; harmless without a record."""
    with contextlib.suppress(FileNotFoundError):
        _record(folder, token).unlink()


def images_made(folder: str) -> list[dict[str, Any]]:
    """Return the records of images that no move has kept or removed yet, each with its token."""
    found = []
    for record in sorted(Path(folder, "images").glob("*.json")):
        held = _read(record)
        if held is not None:
            found.append({**held, "token": record.stem})
    return found


def image_identity(path: str) -> list[int] | None:
    """Return device and inode of an image's file; None for a device, an address, or nothing."""
    if _is_address(path):
        return None
    with contextlib.suppress(OSError):
        found = Path(path).stat()
        return [found.st_dev, found.st_ino] if stat.S_ISREG(found.st_mode) else None
    return None


def image_discard(path: str, identity: list[int]) -> bool:
    """Remove a VM's old image on request; False where it is not that file any more."""
    if identity != image_identity(path):
        return False
    Path(path).unlink()
    return True


def image_allocated(paths: list[str]) -> list[int | None]:
    """Return the bytes that each file takes; None for what is no file."""
    found: list[int | None] = []
    for path in paths:
        try:
            seen = Path(path).stat()
        except OSError:
            found.append(None)
        else:
            found.append(seen.st_blocks * 512 if stat.S_ISREG(seen.st_mode) else None)
    return found


def image_fingerprint(path: str) -> str:
    """Return a hash of all content of a file, and of its size; holes count as the zeros they are.

    Two images with the same one are the same, whatever they are called. Reads all data: for
    images that others rest on, which nobody writes. A file that has not changed since this
    connection read it is not read again.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        seen = os.fstat(file)
        state = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        if not stat.S_ISREG(seen.st_mode):  # what is written to a device does not show there
            return _hash(file)
        if state not in _hashes:
            _hashes[state] = _hash(file)
        return _hashes[state]
    finally:
        os.close(file)


_hashes: dict[tuple[int, ...], str] = {}


def _hash(file: int) -> str:
    digest = hashlib.blake2b(digest_size=32)
    size = os.lseek(file, 0, os.SEEK_END)
    digest.update(size.to_bytes(8, "big"))
    at = 0
    while at < size:
        part = os.pread(file, _CHUNK, at)
        if not part:
            raise OSError("the file became shorter while it was read")
        # Zeros count by their place, so that a hole and written zeros give the same.
        if part.strip(b"\0"):
            digest.update(at.to_bytes(8, "big") + part)
        at = _next_data(file, at + len(part), size)
    return digest.hexdigest()


def _next_data(file: int, at: int, size: int) -> int:
    """Return where data begins at or after `at`, on a boundary of chunks."""
    if at >= size:
        return size
    try:
        data = os.lseek(file, at, os.SEEK_DATA)
    except OSError as error:
        # ENXIO: nothing but a hole follows. Else nobody tells of holes, as on a device.
        return size if error.errno == errno.ENXIO else at
    return max(at, data // _CHUNK * _CHUNK)


def image_room(path: str) -> dict[str, Any]:
    """Return what is at a path, or could be.

    Returns:
        "kind" ("file", "device", "folder", "nothing", "address"), and "free", the bytes free in
        its folder (None where there is no folder, or it is far).
    """
    if _is_address(path):
        return {"kind": "address", "free": None}
    kind = "nothing"
    with contextlib.suppress(OSError):
        mode = Path(path).stat().st_mode
        kind = "device" if stat.S_ISBLK(mode) else "folder" if stat.S_ISDIR(mode) else "file"
    place = Path(path) if kind == "folder" else Path(path).parent
    with contextlib.suppress(OSError):
        space = os.statvfs(place)
        return {"kind": kind, "free": space.f_bavail * space.f_frsize}
    return {"kind": kind, "free": None}


def _is_address(path: str) -> bool:
    return _ADDRESS.match(path) is not None


def _qemu_img(words: list[str]) -> bytes:
    done = subprocess.run(words, capture_output=True, timeout=_QEMU_IMG_SECONDS, check=False)
    if done.returncode != 0:
        raise OSError(done.stderr.decode(errors="replace").strip()[-500:])
    return done.stdout


def _record(folder: str, token: str) -> Path:
    if not _TOKEN.fullmatch(token):
        raise ValueError("that is no token of an image")
    return Path(folder, "images", token + ".json")


def _write(path: Path, held: dict[str, Any]) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w") as out:
        json.dump(held, out)
        out.flush()
        os.fsync(out.fileno())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        held = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


QUESTIONS = {
    "image_make": image_make,
    "image_remove": image_remove,
    "image_keep": image_keep,
    "images_made": images_made,
    "image_identity": image_identity,
    "image_discard": image_discard,
    "image_allocated": image_allocated,
    "image_fingerprint": image_fingerprint,
    "image_room": image_room,
}
