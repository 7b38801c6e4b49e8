"""Checks of disks that both hosts use: the same bytes, safely cached, held by one VM only."""

from urllib.parse import urlsplit

from whimbrel.model.check import Check, Result, failed, passed, warned
from whimbrel.model.preflight import DiskState, ImageSight, PlaceFacts
from whimbrel.model.units import format_size

_LOOPBACK = ("localhost", "127.", "::1")


def same_bytes(
    disk: DiskState,
    sight: ImageSight,
    hosts: tuple[str, str],
    *,
    written: bool,
    copied: bool = False,
) -> Check:
    """Fail where it is not proved that both hosts see the same image.

    Args:
        disk: The disk that it belongs to.
        sight: The image, as both hosts see it.
        hosts: The names of source and destination.
        written: Whether the guest writes to it. What is only read may be an equal copy.
        copied: Whether it is a backing file of a disk whose top image alone is copied.
    """
    source, destination = hosts
    name = f"disk {disk.name}: same bytes"
    if not written and sight.here.path != disk.chain[0]:
        name = f"disk {disk.name}: base {_last(sight.here.path)}"
    here, there = sight.here, sight.there
    mount = (
        f"Mount the share that holds {here.path} at the same place on {destination}, or move the "
        f"disk along: --storage {disk.name}=FOLDER"
    )
    if copied:
        mount = f"Copy {here.path} to the same path on {destination}, or leave out --chain top."
    if here.kind == "address":
        return _same_address(name, sight, destination)
    if {here.kind, there.kind} & {"missing", "unreadable"}:
        return _not_seen(name, sight, hosts, mount)
    if here.kind != there.kind or there.kind not in {"file", "block"}:
        return failed(
            name,
            f"{here.path} is a {here.kind} on {source}, on {destination} a {there.kind}.",
            mount,
        )
    if sight.equal is not None:
        return _equal_bytes(name, sight, destination, mount)
    if here.kind == "block":
        check = _same_device(name, here, there, destination, mount)
        # What only may be the same is not enough for a guest that will read from it alone.
        doubted = copied and check.result is Result.WARN
        return failed(name, check.detail, mount) if doubted else check
    return _same_file(name, sight, destination, mount, written=written)


def _not_seen(name: str, sight: ImageSight, hosts: tuple[str, str], mount: str) -> Check:
    here, there = sight.here, sight.there
    source, destination = hosts
    if there.kind in {"missing", "unreadable"}:
        found = "There is no" if there.kind == "missing" else "Nobody can read"
        return failed(name, f"{found} {there.path} on {destination}.", mount)
    return failed(
        name,
        f"{here.path} cannot be looked at on {source}: {here.words}",
        f"ls -lL {here.path}   # on {source}",
    )


def _equal_bytes(name: str, sight: ImageSight, destination: str, mount: str) -> Check:
    path = sight.here.path
    if sight.equal:
        return passed(name, f"Proved: all bytes of {path} are the same on {destination}.")
    return failed(name, f"{path} holds other bytes on {destination}.", mount)


def _same_file(
    name: str, sight: ImageSight, destination: str, mount: str, *, written: bool
) -> Check:
    here, there = sight.here, sight.there
    if sight.probe and _last(here.real) == _last(there.real):
        proof = f"a file written beside {here.path} was read on {destination}"
        return passed(name, f"Proved: {proof}.")
    if sight.probe is None and here.identities & there.identities:
        return passed(name, f"{here.path} is one file, on one file system of one machine.")
    if not written and _equal_content(here, there) and here.size == there.size:
        return warned(
            name,
            f"{here.path} on {destination} is another file, equal where it was compared; "
            "the guest only reads it.",
            f"sha256sum {here.path}   # on both hosts, to be certain",
        )
    if sight.probe is None:
        return failed(
            name,
            f"Nothing proves that {here.path} is the same file on {destination}: none could be "
            "written beside it.",
            f"chmod u+w {_folder(here.real)}   # let whimbrel's user write there, then plan again",
        )
    return failed(
        name,
        f"{here.path} is another file on {destination}: what was written beside it here is not "
        "seen there.",
        mount,
    )


def _same_device(
    name: str, here: PlaceFacts, there: PlaceFacts, destination: str, mount: str
) -> Check:
    look = f"lsblk -o NAME,SIZE,SERIAL,WWN {here.path}   # on both hosts"
    if here.size != there.size:
        sizes = f"{format_size(here.size)} here, {format_size(there.size)} there"
        return failed(name, f"{here.path} is another device on {destination}: {sizes}.", mount)
    common = sorted(here.identities & there.identities)
    if _contradict(here, there):
        return failed(
            name,
            f"{here.path} holds other bytes on {destination}.",
            f"{look}; connect the same device",
        )
    if common:
        return passed(name, f"{here.path} is the same device on {destination} ({common[0]}).")
    if _serials(here) and _serials(there):
        return failed(
            name,
            f"{here.path} has another serial on {destination}: a copy, not the same device.",
            f"{look}; connect the same device",
        )
    return warned(
        name,
        f"{here.path} has no serial; on {destination} there are equal bytes, maybe of a copy.",
        look,
    )


def _same_address(name: str, sight: ImageSight, destination: str) -> Check:
    here, there = sight.here, sight.there
    if _loopback(here.path) and not here.identities & there.identities:
        return failed(
            name,
            f"{here.path} means each host itself.",
            "Give the server's address as both hosts reach it, in the VM's file.",
        )
    if there.words:
        return failed(
            name,
            f"{destination} cannot open {there.path}: {there.words}",
            f"qemu-img info --force-share {there.path}   # on {destination}",
        )
    if here.size != there.size and not here.words:
        return failed(
            name,
            f"{here.path} has {format_size(here.size)} here, {format_size(there.size)} there.",
            f"qemu-img info --force-share {there.path}   # on both hosts",
        )
    return passed(name, f"{destination} opens the same {there.path}.")


def cache_mode(disk: DiskState, sight: ImageSight) -> Check:
    """Fail where writes may be lost with the host, warn where old bytes may be read.

    QEMU drops the destination's page cache at the switchover (block/file-posix.c), which
    suffices for devices and for shares that are coherent.
    """
    name = f"disk {disk.name}: cache mode"
    remedy = f'cache = "none"   # for {disk.name} in the VM\'s file, then start it anew'
    if disk.no_flush:
        return failed(
            name, "Its flushes are left out (cache=unsafe): the last writes may be lost.", remedy
        )
    if disk.direct or disk.read_only or sight.here.kind == "address":
        return passed(name, "It keeps nothing in the source's page cache.")
    return warned(
        name,
        "It goes through the hosts' page caches; a share that is not coherent would let the "
        "guest read old bytes.",
        remedy,
    )


def held_once(
    disk: DiskState, sight: ImageSight, own: int | None, source: str, destination: str
) -> Check:
    """Fail where another process writes to the image too; warn where locks are not shared."""
    for place, host in ((sight.here, source), (sight.there, destination)):
        check = held_alone(disk, place, own, host)
        if check.result is not Result.PASS:
            return check
    return check


def held_alone(disk: DiskState, place: PlaceFacts, own: int | None, host: str) -> Check:
    """Fail where another process on one host writes to the image; `own` is the VM's."""
    name = f"disk {disk.name}: lock"
    for pid, command in place.holders:
        if pid != own and not disk.read_only:
            return failed(
                name,
                f"{command} (pid {pid}) on {host} has {place.path} open for writing too.",
                f"ps -o pid,args -p {pid}   # on {host}; end it first",
            )
    if place.local_locks and place.shared:
        return warned(
            name,
            f"{host} keeps locks on {place.path} to itself: another host would not notice.",
            f"mount -o remount,lock {_folder(place.real)}   # on {host}",
        )
    return passed(name, "Nobody else has it open for writing.")


def writable(disk: DiskState, there: PlaceFacts, uid: int, destination: str) -> Check:
    """Fail where QEMU's user may not write to the image at the destination."""
    name = f"disk {disk.name}: rights"
    if disk.read_only or there.kind == "address":
        return passed(name, "Its server judges." if not disk.read_only else "It is only read.")
    if there.writable:
        return passed(name, f"User {uid} may write to it on {destination}.")
    return failed(
        name,
        f"User {uid} may not write to {there.path} on {destination}.",
        f"chown {uid} {there.path}   # on {destination}; for NFS see the export (no_root_squash)",
    )


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _loopback(address: str) -> bool:
    return (urlsplit(address).hostname or "").startswith(_LOOPBACK)


def _serials(place: PlaceFacts) -> frozenset[str]:
    return frozenset(name for name in place.identities if not name.startswith("device "))


def _pairs(here: PlaceFacts, there: PlaceFacts) -> list[tuple[str, str]]:
    """Return the places in which at least one host sees more than zeros."""
    return [pair for pair in zip(here.regions, there.regions, strict=False) if any(pair)]


def _equal_content(here: PlaceFacts, there: PlaceFacts) -> bool:
    pairs = _pairs(here, there)
    return bool(here.regions) and all(mine == other for mine, other in pairs)


def _contradict(here: PlaceFacts, there: PlaceFacts) -> bool:
    """Tell whether no place agrees; some may differ, since the guest writes meanwhile."""
    pairs = _pairs(here, there)
    return bool(pairs) and not any(mine == other for mine, other in pairs)
