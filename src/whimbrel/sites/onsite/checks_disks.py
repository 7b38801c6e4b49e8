"""What a preflight asks about disks: what lies at a path, and whether two hosts see the same.

The proof for a file is a probe: a small file with a random name, written beside the image at
the source, read at the destination and removed at once. It is the only thing that a preflight
ever writes. Block devices are known by their serial and by what stands in some places.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

_REGION = 65536
_REGIONS = 8
_PROBE = ".whimbrel-probe-"
_STALE_AFTER = 60.0
_SHARED = re.compile(
    r"nfs4?|cifs|smb3?|smbfs|ceph|gfs2?|ocfs2|lustre|afs|9p|virtiofs|glusterfs"
    r"|fuse\.(glusterfs.*|sshfs|ceph.*|moosefs|lizardfs|juicefs.*|s3fs)"
)


def preflight_disk(path: str) -> dict[str, Any]:
    """Return what lies at a path, or would: it may be missing.

    Writes nothing; a file is opened for writing for a moment to learn whether that may be.
    """
    real = os.path.realpath(path)
    folder = os.path.dirname(real)  # noqa: PTH120 - of the real path, which may be missing
    facts: dict[str, Any] = {"path": path, "real": real, "folder": folder, **_place(folder)}
    try:
        found = Path(real).stat()
    except OSError as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        return {**facts, "kind": kind, "words": str(error)}
    if stat.S_ISBLK(found.st_mode):
        return {**facts, **_device(real, found)}
    if not stat.S_ISREG(found.st_mode):
        return {**facts, "kind": "other"}
    return {
        **facts,
        "kind": "file",
        "size": found.st_size,
        "allocated": found.st_blocks * 512,
        "writable": _file_writable(real),
        "identities": [f"inode {_boot_id()} {found.st_dev}:{found.st_ino}"],
        "regions": _regions(real, found.st_size),
        "holders": _holders(Path(real), found),
    }


def _place(folder: str) -> dict[str, Any]:
    """Return the facts of the folder in which an image lies or would lie."""
    try:
        space = os.statvfs(folder)
    except OSError:
        return {"folder_exists": False}
    kind, options = _mount(folder)
    return {
        "folder_exists": True,
        "volume": str(Path(folder).stat().st_dev),
        "folder_writable": os.access(folder, os.W_OK | os.X_OK),
        "free": space.f_bavail * space.f_frsize,
        "file_system": kind,
        "shared": bool(_SHARED.fullmatch(kind)),
        # Locks that stay on this host keep nobody on another host from writing.
        "local_locks": bool({"nolock", "local_lock=all", "local_lock=posix"} & options),
    }


def _mount(folder: str) -> tuple[str, set[str]]:
    """Return the kind of the file system that holds a folder, and its mount options."""
    device = Path(folder).stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    best = ("", set[str]())
    longest = -1
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        _, _, numbers, _, point, options, *_ = fields.split()
        kind, _, more = rest.split()[:3]
        point = point.encode().decode("unicode_escape")
        within = folder == point or folder.startswith(point.rstrip("/") + "/")
        if numbers == number and within and len(point) >= longest:
            longest = len(point)
            best = (kind, set(options.split(",")) | set(more.split(",")))
    return best


def _file_writable(path: str) -> bool:
    """Tell whether it can be opened for writing, as a share's server judges; writes nothing."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _device(path: str, found: os.stat_result) -> dict[str, Any]:
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    size = 0
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
    return {
        "kind": "block",
        "size": size,
        "allocated": size,
        # Opening it for writing would wake udev, hence only the rights are looked at.
        "writable": os.access(path, os.W_OK) and _attribute(number, "ro") != "1",
        "identities": [f"device {_boot_id()} {number}", *_serials(number)],
        "regions": _regions(path, size),
        "holders": _holders(Path(path), found),
    }


def _serials(number: str) -> list[str]:
    """Return what names a block device wherever it is attached."""
    names = ("wwid", "device/wwid", "device/serial", "serial", "dm/uuid", "nguid", "uuid")
    found = {_attribute(number, name) for name in names}
    # Multipath's name holds the path's own: "mpath-3600…" for "naa.600…".
    bare = {re.sub(r"^(mpath-3|naa\.|eui\.|t10\.|uuid\.)", "", value) for value in found if value}
    return sorted(value for value in bare if value.strip("0-"))


def _attribute(number: str, name: str) -> str:
    try:
        return Path("/sys/dev/block", number, name).read_text().strip()
    except OSError:
        return ""


def _regions(path: str, size: int) -> list[str]:
    """Return digests of some places, evenly spread; "" for one that is all zeros.

    Read past this host's cache where that can be, since another host may have written.
    """
    places = sorted(
        {
            min(size * index // _REGIONS, max(0, size - _REGION)) // _REGION * _REGION
            for index in range(_REGIONS + 1)
        }
    )
    for flags in (os.O_DIRECT, 0):
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
                return [_digest(file, place) for place in places]
            finally:
                os.close(file)
    return []


def _digest(file: int, place: int) -> str:
    with mmap.mmap(-1, _REGION) as room:  # aligned, as O_DIRECT wants it
        count = os.preadv(file, [room], place)
        content = room[:count]
    return hashlib.sha256(content).hexdigest() if content.strip(b"\0") else ""


def _holders(path: Path, image: os.stat_result) -> list[dict[str, Any]]:
    """Return the processes that have an image open for writing, as far as this user may see.

    Only those count that know it by the same last name: to look behind every open file of a
    busy host takes seconds.
    """
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            numbers = os.listdir(process / "fd")  # noqa: PTH208 - thousands, so no objects
            if any(_writes(process, number, path.name, image) for number in numbers):
                command = (process / "comm").read_text().strip()
                found.append({"pid": int(process.name), "command": command})
    return found


def _writes(process: Path, number: str, name: str, image: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        link = f"{process}/fd/{number}"
        if os.readlink(link).rpartition("/")[2] != name:  # noqa: PTH115 - likewise
            return False
        held = os.stat(link)  # noqa: PTH116 - likewise
        device = stat.S_ISBLK(image.st_mode) and held.st_rdev == image.st_rdev
        if device or (held.st_dev, held.st_ino) == (image.st_dev, image.st_ino):
            for line in (process / "fdinfo" / number).read_text().splitlines():
                if line.startswith("flags:"):
                    return bool(int(line.split()[1], 8) & (os.O_WRONLY | os.O_RDWR))
    return False


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def preflight_probe(folder: str, token: str) -> bool:
    """Write a probe into a folder; False where this user may not.

    What an earlier preflight left that was killed meanwhile is removed.
    """
    with contextlib.suppress(OSError):
        for old in Path(folder).glob(_PROBE + "*"):
            if time.time() - old.stat().st_mtime > _STALE_AFTER:
                old.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        # Readable by all: on a share the other host may be another user. It holds no secret.
        file = os.open(_probe(folder, token), flags, 0o644)
    except OSError:
        return False
    with os.fdopen(file, "w") as content:
        content.write(token)
        content.flush()
        os.fsync(content.fileno())
    return True


def preflight_probe_seen(folder: str, token: str) -> bool:
    """Tell whether a probe that another host wrote is seen here."""
    try:
        return _probe(folder, token).read_text() == token
    except OSError:
        return False


def preflight_probe_gone(folder: str, token: str) -> None:
    """Remove a probe; harmless when there is none."""
    with contextlib.suppress(FileNotFoundError):
        _probe(folder, token).unlink()


def _probe(folder: str, token: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{16,64}", token):
        raise ValueError("a token is hexadecimal")
    return Path(folder, _PROBE + token)


def preflight_image(address: str) -> dict[str, Any]:
    """Open an image that QEMU reaches by itself (nfs://, iscsi://), to read only.

    Returns:
        Its virtual "size", or the "words" with which qemu-img refused.
    """
    words = ["qemu-img", "info", "--force-share", "--output=json", "--", address]
    try:
        told = subprocess.run(words, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return {"words": str(error)}
    if told.returncode:
        return {"words": told.stderr.decode(errors="replace").strip()[-500:]}
    return {"size": int(json.loads(told.stdout)["virtual-size"])}


QUESTIONS = {
    "preflight_disk": preflight_disk,
    "preflight_probe": preflight_probe,
    "preflight_probe_seen": preflight_probe_seen,
    "preflight_probe_gone": preflight_probe_gone,
    "preflight_image": preflight_image,
}
