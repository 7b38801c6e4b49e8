"""Checks of disks that are copied along: the place of the copy, and the room it needs."""

from collections import defaultdict
from collections.abc import Sequence

from whimbrel.model.check import Check, failed, passed, warned
from whimbrel.model.preflight import DiskState, PlaceFacts
from whimbrel.model.units import format_size


def place_free(disk: DiskState, there: PlaceFacts, destination: str) -> Check:
    """Fail where a copy cannot be made at its place, or would overwrite what lies there."""
    name = f"disk {disk.name}: place"
    if there.kind == "block":
        return _device(name, disk, there, destination)
    if there.kind == "address":
        return _address(name, disk, there, destination)
    if not there.folder_exists:
        folder = there.real.rpartition("/")[0]
        return failed(
            name,
            f"There is no folder {folder} on {destination}.",
            f"mkdir -p {folder}   # on {destination}",
        )
    if there.kind != "missing":
        return failed(
            name,
            f"{there.path} is there already on {destination}, and would be overwritten.",
            f"mv {there.path} {there.path}.old   # on {destination}; or choose another path",
        )
    if not there.folder_writable:
        folder = there.real.rpartition("/")[0]
        return failed(
            name,
            f"Nothing may be written to {folder} on {destination}.",
            f"chmod u+w {folder}   # on {destination}, for the user that runs QEMU",
        )
    return passed(name, f"{there.path} can be made on {destination}.")


def _device(name: str, disk: DiskState, there: PlaceFacts, destination: str) -> Check:
    if there.size < disk.size:
        return failed(
            name,
            f"{there.path} on {destination} has {format_size(there.size)}; {disk.name} needs "
            f"{format_size(disk.size)}.",
            f"lvextend -L {disk.size}b {there.path}   # on {destination}; or choose another device",
        )
    if there.holders or not there.writable:
        who = f"pid {there.holders[0][0]} has it open" if there.holders else "it is not writable"
        return failed(
            name,
            f"{there.path} on {destination} cannot be taken: {who}.",
            f"fuser -v {there.path}   # on {destination}",
        )
    return warned(
        name,
        f"What {there.path} on {destination} holds will be overwritten.",
        f"wipefs {there.path}   # on {destination} tells what it holds",
    )


def _address(name: str, disk: DiskState, there: PlaceFacts, destination: str) -> Check:
    """Judge a place that only QEMU opens: an iSCSI unit must be there, an NFS file must not."""
    look = f"qemu-img info {there.path}   # on {destination}"
    unit = there.path.startswith("iscsi:")
    if there.words and unit:
        return failed(name, f"{destination} cannot open {there.path}: {there.words}", look)
    if there.words:
        return warned(
            name, f"Nothing seems to lie at {there.path}; whether one may write is not known.", look
        )
    if not unit:
        return failed(
            name,
            f"{there.path} is there already, and would be overwritten.",
            f"{look}; choose another path",
        )
    if there.size < disk.size:
        sizes = f"{format_size(there.size)}; {disk.name} needs {format_size(disk.size)}"
        return failed(name, f"{there.path} has {sizes}.", "Choose a larger unit.")
    return warned(name, f"What {there.path} holds will be overwritten.", look)


def room(copies: Sequence[tuple[DiskState, PlaceFacts]], destination: str) -> Check:
    """Fail where copies do not fit; warn where they would not once they have grown."""
    name = "room for copies"
    volumes: dict[str, list[tuple[DiskState, PlaceFacts]]] = defaultdict(list)
    for disk, there in copies:
        if there.kind not in {"block", "address"} and there.folder_exists:
            volumes[there.volume].append((disk, there))
    remedy = f"df -h FOLDER   # on {destination}; make room, or choose another place"
    short: Check | None = None
    for members in volumes.values():
        place = members[0][1]
        where = place.real.rpartition("/")[0] or "/"
        free = f"{format_size(place.free)} free in {where} on {destination}"
        now = sum(disk.allocated for disk, _ in members)
        grown = sum(disk.size for disk, _ in members)
        if now > place.free:
            return failed(
                name,
                f"{format_size(now)} are to be copied, with {free}.",
                remedy.replace("FOLDER", where),
            )
        if grown > place.free:
            short = warned(
                name,
                f"The disks may grow to {format_size(grown)}, with {free}.",
                remedy.replace("FOLDER", where),
            )
    return short or passed(name, "All copies fit, also when their disks have filled.")


def no_snapshots(disk: DiskState) -> Check:
    """Fail where snapshots inside the image would be left behind."""
    name = f"disk {disk.name}: snapshots"
    if disk.snapshots:
        return failed(
            name,
            f"A copy leaves its snapshots behind: {', '.join(disk.snapshots)}.",
            f"qemu-img snapshot -d NAME {disk.chain[0]}   # while the VM is off; or keep the disk "
            "where it is",
        )
    return passed(name, "It has no snapshots inside.")
